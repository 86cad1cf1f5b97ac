"""Makes the table of students on which searches are replayed, from a search that judged a whole grid.

Run it with

    python -m kdnas_core search --spec benchmarks/table/spec.json --db table.db
    python -m benchmarks.table table.db

The first command distils every architecture of the grid in the same way, and stops none; the second measures
their latency in two more runtimes and writes `benchmarks/table/students.csv`. Both go on where they were
ended. A row holds the knobs; parameters and multiply-adds; `ms` in ONNX Runtime (float32, one thread, one
text of 128 tokens), `ms_int8` with 8-bit weights and `ms_torch` in eager torch; the loss before the first
step and after each rung, `loss` at the end, its standard error over texts; seconds. Latencies are the
teacher's when the search began over speed-ups, so that the machine's drift is left out. What is over the
largest budget was not distilled and has no loss; where it is far over, its latency is an estimate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rows import append, read
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import load_teacher
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.space import KNOBS
from kdnas_core.spec import Runtime

OUT = Path(__file__).with_name("students.csv")
FURTHER: dict[str, Runtime] = {"ms_int8": "onnxruntime-int8", "ms_torch": "torch"}


def main() -> None:
    """Adds a row for each student that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("db", type=Path, help="the store of the search")
    parser.add_argument("--run", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    known = {row["student"] for row in read(given.out)}
    with opened(given.db, read_only=True) as store:
        for row in _rows(store, store.run(given.run), known):
            append(given.out, row)
            print(row["student"], f"{row['ms']:.2f} ms", row["loss"], flush=True)


def _rows(store: Store, run: Run, known: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of the teacher and of the students that are not known, each with its own measurements."""
    assert run.teacher is not None, "the search has begun"
    teacher = load_teacher(run.spec.teacher)
    benches = {
        name: LatencyBench(teacher, run.spec.latency.model_copy(update={"runtime": runtime}))
        for name, runtime in FURTHER.items()
    }
    teachers_ms = {name: bench.teacher_latency().p50 for name, bench in benches.items()}
    candidates = store.candidates(run.id)
    done = [candidate for candidate in candidates if candidate.state == "done"]
    by_step = {each.id: losses_by_step(store.layer_losses(each.id)) for each in done}
    steps = sorted(by_step[done[0].id])
    if "teacher" not in known:
        of_teacher = run.teacher.architecture
        yield {
            "student": "teacher",
            **_knobs(asdict(of_teacher)),
            "parameters": run.teacher.parameters,
            "flops": run.teacher.flops,
            "ms": round(run.teacher.latency.p50, 4),
            **{name: round(ms, 4) for name, ms in teachers_ms.items()},
            **{f"loss_{step}": "" for step in steps},
            **{"loss": "", "loss_se": "", "seconds": ""},
        }
    for candidate in candidates:
        if candidate.architecture.key in known or candidate.state not in ("done", "over_budget"):
            continue
        if candidate.state == "over_budget":
            empty = dict.fromkeys(
                (*FURTHER, *(f"loss_{step}" for step in steps), "loss", "loss_se", "seconds"), ""
            )
            yield {**_measured(candidate, run), **empty}
            continue
        student = new_student(teacher, candidate.architecture, run.spec.seed)
        further = {
            name: round(teachers_ms[name] / bench.student_latency(candidate.architecture, student).speedup, 4)
            for name, bench in benches.items()
        }
        yield {**_measured(candidate, run), **further, **_losses(candidate, by_step[candidate.id])}


def _measured(candidate: Candidate, run: Run) -> dict[str, Any]:
    assert run.teacher is not None
    teacher_ms, latency = run.teacher.latency.p50, candidate.latency
    ms = candidate.estimated_ms if latency is None else teacher_ms / latency.speedup
    assert ms is not None
    return {
        "student": candidate.architecture.key,
        **_knobs(asdict(candidate.architecture)),
        "parameters": candidate.parameters,
        "flops": candidate.flops,
        "ms": round(ms, 4),
    }


def _losses(candidate: Candidate, by_step: dict[int, float]) -> dict[str, Any]:
    assert candidate.loss is not None and candidate.loss_se is not None
    return {
        **{f"loss_{step}": round(loss, 6) for step, loss in sorted(by_step.items())},
        "loss": round(candidate.loss, 6),
        "loss_se": round(candidate.loss_se, 6),
        "seconds": round(candidate.seconds, 1),
    }


def _knobs(architecture: dict[str, Any]) -> dict[str, Any]:
    return {knob: architecture[knob] for knob in KNOBS}


if __name__ == "__main__":
    main()
