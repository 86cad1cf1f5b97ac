"""The table of systems: a teacher, the published students with their own recipes, and the searched one.

Run it with `python -m benchmarks.systems`. Every system is distilled on the same corpus for the same epochs
by its own recipe, timed, and fine-tuned on the same tasks. Published shapes belong to BERT-base: for a
smaller teacher they are scaled, and the row says so. All is kept in a store (`--db`), whose leaderboard
shows the same table; a table that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.dashboard.model.published import SYSTEMS, System, name_of, scaled
from kdnas_core.errors import BadInput
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.student import new_student, parameters, save
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Candidate, Run, TeacherFacts
from kdnas_core.runs.score_table import averages, figures_of
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.worker import distil, score, work_on
from kdnas_core.search.pareto import pick
from kdnas_core.search.reward import within_budget
from kdnas_core.spec import DistilSpec, LatencySpec, ObjectiveSpec, ProxySpec, RunSpec, ScoreSpec, SearchSpec

SEARCHED = "searched"


@dataclass(frozen=True)
class Table:
    """What all systems share.

    Attributes:
        store: keeps them.
        teacher: of all.
        corpus: that all are distilled on.
        how: the full distillation.
        scoring: tasks and seeds.
        speedup: that the searched student must have.
    """

    store: Store
    teacher: Teacher
    corpus: str
    how: DistilSpec
    scoring: ScoreSpec
    speedup: float

    def spec(self, name: str, **fields: Any) -> RunSpec:
        """The spec of a row's run."""
        latency = LatencySpec(budget_speedup=self.speedup)
        return RunSpec(name=name, teacher=self.teacher.name, corpus=self.corpus, latency=latency, **fields)


def main() -> None:
    """Fills the store and prints the table, and JSON in the last line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    disable_progress_bar()
    given = _arguments()
    with opened(given.db) as store:
        table = Table(
            store,
            load_teacher(given.teacher),
            given.corpus,
            DistilSpec(epochs=given.epochs, sentences=given.sentences, sequence_length=given.length),
            ScoreSpec(tasks=given.tasks, seeds=given.seeds, rows=given.rows),
            given.speedup,
        )
        for system in SYSTEMS:
            if given.systems is None or system.name in given.systems:
                _guarded(system.name, partial(_published, table, system))
        if given.systems is None or SEARCHED in given.systems:
            _guarded(SEARCHED, partial(_searched, table, given.episodes, given.candidates, given.steps))
        rows = _rows(table)
    _print(rows)
    print(json.dumps({"systems": rows}))


def _guarded(name: str, work: Callable[[], None]) -> None:
    """A system that cannot learn from this teacher is left out with its reason."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        work()
    except BadInput as error:
        print(f"{name} is left out: {error}", file=sys.stderr, flush=True)


def _published(table: Table, system: System) -> None:
    shape = scaled(PRESETS[system.preset], table.teacher.architecture)
    objective = ObjectiveSpec(recipe=system.recipe or "kdnas", head="trained")
    name = name_of(system, shape) + (", not distilled" if system.recipe is None else "")
    candidate = _candidate(table, table.spec(name, objective=objective), shape)
    if system.recipe is None:
        _undistilled(table, candidate)
        _score(table, candidate, None)
    else:
        _score(table, candidate, _distilled(table, candidate))


def _candidate(table: Table, spec: RunSpec, shape: Architecture) -> Candidate:
    """The one candidate of a row's run; measured, and not judged, since it is distilled in full at once."""
    store = table.store
    found = next((run for run in store.runs() if run.name == spec.name), None)
    run = found or store.run(store.create_run(spec, Worker.this_process()))
    if not store.candidates(run.id):
        bench = LatencyBench(table.teacher, spec.latency)
        _keep_teacher(table, run, bench)
        student = new_student(table.teacher, shape, seed=0)
        latency = bench.student_latency(shape, student)
        store.begin_episode(run.id, 1, [(shape, None)])
        (candidate,) = store.candidates(run.id)
        store.update_candidate(
            candidate.id,
            state="done" if within_budget(latency, spec.latency, latency.teacher_p50) else "over_budget",
            parameters=parameters(student),
            flops=shape.flops(spec.latency.sequence_length),
            latency=latency.to_dict(),
        )
        store.end_run(run.id, "finished")
    return store.candidates(run.id)[0]


def _keep_teacher(table: Table, run: Run, bench: LatencyBench) -> None:
    teacher, length = table.teacher, bench.protocol.sequence_length
    facts = TeacherFacts(
        name=teacher.name,
        architecture=teacher.architecture,
        parameters=parameters(teacher.model),
        flops=teacher.architecture.flops(length),
        latency=bench.teacher_latency(),
    )
    table.store.set_teacher(run.id, run.spec, facts)


def _undistilled(table: Table, candidate: Candidate) -> None:
    """Random weights, for a system that learns the tasks alone."""
    if candidate.weights:
        return
    student = new_student(table.teacher, candidate.architecture, seed=0)
    save(student, table.teacher.tokenizer, table.store.files(candidate.run, candidate.id))
    table.store.update_candidate(candidate.id, weights=1)


def _distilled(table: Table, candidate: Candidate) -> int:
    """The student that was distilled from a candidate; begun, or gone on with, unless it is finished."""
    store = table.store
    known = [student for student in store.students(candidate.run) if student.candidate == candidate.id]
    student = known[0] if known else store.student(store.create_student(candidate.id, table.how))
    if student.state != "finished":
        if student.state != "queued":
            store.resume(student.job)
        claimed = store.claim(Worker.this_process(), ["students"])
        assert claimed is not None and claimed.id == student.id
        if distil(store, store.student(student.id)) != "finished":
            raise BadInput(store.student(student.id).error or "it was ended")
    return student.id


def _score(table: Table, candidate: Candidate, student: int | None, control: bool = False) -> None:
    """Scores a row; what this machine has scored before is remembered."""
    store, how = table.store, table.scoring.model_copy(update={"control": control})
    chosen = {"student": student} if student is not None else {"candidate": candidate.id}
    if any(each.state == "finished" and each.spec == how for each in store.scorings(**chosen)):
        return
    scoring = store.create_scoring(how, **chosen, worker=Worker.this_process())
    if score(store, store.scoring(scoring)) != "finished":
        raise BadInput(store.scoring(scoring).error or "it was ended")


def _searched(table: Table, episodes: int, candidates: int, steps: int) -> None:
    """A search under the budget, its pick, and a control that learns the tasks alone."""
    store = table.store
    spec = table.spec(
        SEARCHED,
        proxy=ProxySpec(steps=steps, sentences=3_000, held_out=300),
        search=SearchSpec(episodes=episodes, candidates=candidates, keep_weights="all"),
    )
    run = next((run for run in store.runs() if run.name == SEARCHED), None)
    if run is None:
        run = store.run(store.create_run(spec, Worker.this_process()))
        work_on(store, run)
    done = [each for each in store.candidates(run.id) if each.state == "done"]
    best = pick([each.point for each in done], float("inf"))
    if best is None:
        raise BadInput("no candidate of the search is within the budget")
    _score(table, done[best], _distilled(table, done[best]), control=True)


def _rows(table: Table) -> list[dict[str, Any]]:
    """One row for the teacher, each system, and the control."""
    store = table.store
    rows: list[dict[str, Any]] = []
    for scoring in reversed(store.scorings()):
        if scoring.state != "finished":
            continue
        scores, run = store.scores(scoring.id), store.run(scoring.run)
        student = None if scoring.student is None else store.student(scoring.student)
        candidate = store.candidate(scoring.candidate or (student.candidate if student else 0))
        means = averages(scores)
        assert run.teacher is not None and candidate.latency is not None
        if not rows:
            teacher = {"parameters": run.teacher.parameters, "flops": run.teacher.flops, "speedup": 1.0}
            of_teacher = {"tasks": figures_of(scores, "teacher"), "average": means.teacher, "retained": 1.0}
            rows.append({"system": f"teacher {run.teacher.name}", **teacher, **of_teacher})
        cost = {
            "parameters": candidate.parameters,
            "flops": candidate.flops,
            "speedup": candidate.latency.speedup,
        }
        name = run.name if run.name != SEARCHED else f"searched ({candidate.architecture.key})"
        of_student = {"tasks": figures_of(scores), "average": means.student, "retained": means.retained}
        rows.append({"system": name, **cost, **of_student})
        if means.control is not None and means.teacher:
            of_control = {"average": means.control, "retained": means.control / means.teacher}
            tasks = figures_of(scores, "control")
            rows.append({"system": f"{name}, no distillation", **cost, "tasks": tasks, **of_control})
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    tasks = list(rows[0]["tasks"]) if rows else []
    heads = " ".join(f"{task[:16]:>16}" for task in tasks)
    print(
        f"{'system':<44} {'params':>8} {'GFLOPs':>7} {'speed-up':>8} {heads} {'average':>8} {'retained':>8}"
    )
    for row in rows:
        values = " ".join(f"{row['tasks'].get(task, float('nan')):16.4f}" for task in tasks)
        print(
            f"{row['system']:<44} {row['parameters'] / 1e6:7.2f}M {row['flops'] / 1e9:7.2f} "
            f"{row['speedup']:7.1f}x {values} {row['average']:8.4f} {row['retained']:8.1%}"
        )
    print("\nPublished, with BERT-base as the teacher (GLUE test average; not to be compared row by row):")
    for system in SYSTEMS:
        if system.average is not None and system.retained is not None:
            print(f"{system.name:<44} {system.average:8.1f} {system.retained:8.1%}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", type=Path, default=Path("systems.db"), help="the store")
    parser.add_argument("--teacher", default="packaged")
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--tasks", nargs="+", default=["packaged"])
    parser.add_argument("--systems", nargs="+", help=f"names of these only; {SEARCHED} is one")
    parser.add_argument("--epochs", type=float, default=0.5, help="of the corpus")
    parser.add_argument("--sentences", type=int, default=1_000_000, help="of the corpus at the most")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--seeds", type=int, default=1, help="fine-tuned models of each system and task")
    parser.add_argument("--rows", type=int, default=100_000, help="of a training split at the most")
    parser.add_argument("--speedup", type=float, default=7.0, help="that the searched student must have")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--steps", type=int, default=80, help="of the mini-KD of the search")
    return parser.parse_args()


if __name__ == "__main__":
    main()
