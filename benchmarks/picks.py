"""What is the student worth that a search picks, by the mean over layers and by the agreement of vectors?

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.picks TASKS`, a folder with the local tasks stsb, trec and
sst2. Two searches, equal but for what candidates are judged by (and the published recipe that goes with the
mean over layers), in a store (`--db`) that can be looked at and gone on with. What has the least loss under
each budget, ties aside, is then distilled in full in one and the same way, for as many minutes of one thread,
and scored by its vectors. Rows are appended to a CSV, so that the benchmark can be ended and go on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.minutes import distil_for
from benchmarks.rows import append, read
from benchmarks.yardstick import scores_of_vectors
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import read_task
from kdnas_core.files import cache_folder
from kdnas_core.models.student import read_student
from kdnas_core.models.teacher import load_teacher
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Run
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.worker import work_on
from kdnas_core.search.pareto import pick
from kdnas_core.search.prepare import prepare
from kdnas_core.spec import DistilSpec, LatencySpec, RunSpec, SearchSpec

BUDGETS = (3.0, 5.0, 7.0)  # speed-ups
SEARCH = SearchSpec(episodes=8, candidates=6)
TASKS = ("stsb", "trec", "sst2")
SCORES = ("stsb_zero_shot", "probe_trec", "probe_sst2")
OUT = Path(__file__).parent / "results" / "picks.csv"


@dataclass(frozen=True)
class Picked:
    """The pick of a search under a budget."""

    judged_by: str
    budget: float
    shape: Architecture
    loss: float
    speedup: float


def main() -> None:
    """Runs what the store and the CSV lack, and prints a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--db", type=Path, default=Path("picks.db"))
    parser.add_argument("--corpus", default="packaged", help="of full distillation")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with opened(given.db) as store:
        picks = [found for spec in _specs() for found in _picks(store, _searched(store, spec))]
    how = DistilSpec(recipe="vectors", sequence_length=given.tokens)
    for shape in dict.fromkeys(picked.shape for picked in picks):
        if not any(row["shape"] == shape.key for row in read(given.out)):
            append(given.out, _row(shape, given.minutes, given.corpus, how, given.tasks))
    _print(picks, {row["shape"]: row for row in read(given.out)})


def _specs() -> list[RunSpec]:
    spec = RunSpec(latency=LatencySpec(budget_speedup=min(BUDGETS)), search=SEARCH)
    return [
        spec.judged_by_layers().model_copy(update={"name": "layers"}),
        spec.model_copy(update={"name": "agreement"}),
    ]


def _searched(store: Store, spec: RunSpec) -> Run:
    """The finished search of this name."""
    run = next((run for run in store.runs() if run.name == spec.name and run.state == "finished"), None)
    if run is None:
        prepared = prepare(spec, lambda activity: print(activity, flush=True))
        run = store.run(store.create_run(prepared.spec, Worker.this_process()))
        work_on(store, run, prepared, lambda event: None)
    return store.run(run.id)


def _picks(store: Store, run: Run) -> list[Picked]:
    done = [each for each in store.candidates(run.id) if each.state == "done"]
    assert run.teacher is not None
    found = []
    for budget in BUDGETS:
        points = [(each.latency.p50, each.loss) for each in done if each.latency and each.loss is not None]
        best = pick(points, run.teacher.latency.p50 / budget)
        if best is not None:
            candidate = done[best]
            speedup = run.teacher.latency.p50 / points[best][0]
            found.append(Picked(run.name, budget, candidate.architecture, points[best][1], round(speedup, 2)))
    return found


def _row(
    shape: Architecture, minutes: float, corpus: str, how: DistilSpec, folder: Path
) -> dict[str, object]:
    teacher = load_teacher("packaged")
    tasks = {name: read_task(str(folder / name), cache_folder()) for name in TASKS}
    with tempfile.TemporaryDirectory() as made:
        row = distil_for(minutes, shape, RunSpec(corpus=corpus), how, Path(made))
        scores = scores_of_vectors(read_student(Path(made)), teacher.tokenizer, tasks)
    print(shape.key, row, scores, flush=True)
    return {"shape": shape.key, **row, **scores}


def _print(picks: list[Picked], rows: dict[str, dict[str, str]]) -> None:
    print(f"{'budget':<8}{'judged by':<12}{'student':<24}{'speed-up':>9}{'loss':>7}{'STS-B':>8}{'mean':>7}")
    table = []
    for picked in sorted(picks, key=lambda picked: picked.budget):
        scores = {name: float(rows[picked.shape.key][name]) for name in SCORES}
        mean = round(fmean(scores.values()), 2)
        print(
            f"1/{picked.budget:<6.0f}{picked.judged_by:<12}{picked.shape.key:<24}{picked.speedup:>9.2f}"
            f"{picked.loss:>7.3f}{scores['stsb_zero_shot']:>8.2f}{mean:>7.2f}"
        )
        table.append(
            {
                "budget": picked.budget,
                "by": picked.judged_by,
                "shape": picked.shape.key,
                "speedup": picked.speedup,
                "loss": round(picked.loss, 4),
                **scores,
                "mean": mean,
            }
        )
    print(json.dumps({"picks": table}))


if __name__ == "__main__":
    main()
