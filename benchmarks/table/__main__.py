"""Makes the table of students on which searches are replayed, from a search that judged a whole grid.

Run it with

    for layers in 1 2 3 4 5 6; do
      python -m kdnas_core search --db table.db --spec benchmarks/table/spec.json --set space.layers=[$layers]
      python -m benchmarks.table table.db
    done

The first command distils every architecture of the grid with so many layers in the same way, and stops none;
the second measures their latency in two more runtimes and adds them to `benchmarks/table/students.csv`. Both
go on where they were ended. A row holds the knobs; parameters and multiply-adds; `ms` in ONNX Runtime
(float32, one thread, one text of 128 tokens), `ms_int8` with 8-bit weights and `ms_torch` in eager torch; the
loss before the first step and after each rung, `loss` at the end, its standard error over texts; seconds.
Latencies are the teacher's, as measured first, over speed-ups, so that the machine's drift is left out.
In the two further runtimes up to eight students take turns with the teacher. What is over the largest budget
was not distilled and has no loss; where it is far over, its latency is an estimate.

The committed file is of two cores of an AMD EPYC, in bfloat16, seed 0, on the packaged corpus: torch 2.13.0
(CPU), transformers 5.23.0, onnxruntime 1.31.1, Python 3.11.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rows import append, read
from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.protocol import TimedRun, reading, time_in_turns
from kdnas_core.latency.runtimes import runner, threads
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.space import KNOBS
from kdnas_core.spec import LatencySpec, Runtime

OUT = Path(__file__).with_name("students.csv")
FURTHER: dict[str, Runtime] = {"ms_int8": "onnxruntime-int8", "ms_torch": "torch"}
IN_TURN = 8  # students that one series of the teacher's runs stands beside


def main() -> None:
    """Adds a row for each student that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("db", type=Path, help="the store of the searches")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with opened(given.db, read_only=True) as store:
        for run in store.runs():
            if run.teacher is not None and store.candidates(run.id):
                _add(store, run, given.out)


def _add(store: Store, run: Run, out: Path) -> None:
    teacher = load_teacher(run.spec.teacher)
    candidates = store.candidates(run.id)
    done = [candidate for candidate in candidates if candidate.state == "done"]
    by_step = {each.id: losses_by_step(store.layer_losses(each.id)) for each in done}
    losses = [f"loss_{step}" for step in sorted(by_step[done[0].id])]
    empty = dict.fromkeys((*FURTHER, *losses, "loss", "loss_se", "seconds"), "")
    protocols = {
        name: run.spec.latency.model_copy(update={"runtime": runtime}) for name, runtime in FURTHER.items()
    }
    if not read(out):
        append(out, _of_teacher(run, teacher, protocols, empty))
    rows = {row["student"]: row for row in read(out)}
    teacher_ms = {name: float(rows["teacher"][name]) for name in ("ms", *FURTHER)}
    for candidate in candidates:
        if candidate.state == "over_budget" and candidate.architecture.key not in rows:
            append(out, {**_measured(candidate, run, teacher_ms["ms"]), **empty})
    left = [candidate for candidate in done if candidate.architecture.key not in rows]
    runners = {name: runner(teacher.model, protocol) for name, protocol in protocols.items() if left}
    for start in range(0, len(left), IN_TURN):
        group = left[start : start + IN_TURN]
        shapes = [each.architecture for each in group]
        ms = {
            name: [
                teacher_ms[name] / speedup
                for speedup in _speedups(teacher, of_teacher, shapes, protocols[name])
            ]
            for name, of_teacher in runners.items()
        }
        for index, each in enumerate(group):
            further = {name: round(values[index], 4) for name, values in ms.items()}
            row = {
                **_measured(each, run, teacher_ms["ms"]),
                **further,
                **_losses(each, by_step[each.id]),
            }
            append(out, row)
            print(row["student"], f"{row['ms']:.2f} ms", row["loss"], flush=True)


def _of_teacher(
    run: Run, teacher: Teacher, protocols: dict[str, LatencySpec], empty: dict[str, str]
) -> dict[str, Any]:
    assert run.teacher is not None, "the search has begun"
    further = {
        name: round(LatencyBench(teacher, protocol).teacher_latency().p50, 4)
        for name, protocol in protocols.items()
    }
    return {
        "student": "teacher",
        **_knobs(asdict(run.teacher.architecture)),
        "parameters": run.teacher.parameters,
        "flops": run.teacher.flops,
        "ms": round(run.teacher.latency.p50, 4),
        **empty,
        **further,
    }


def _speedups(
    teacher: Teacher, of_teacher: TimedRun, shapes: Sequence[Architecture], protocol: LatencySpec
) -> list[float]:
    """The speed-ups of students that take turns with their teacher."""
    with exclusive(), threads(protocol):
        runners = [runner(new_student(teacher, shape, 0), protocol) for shape in shapes]
        timings = time_in_turns([of_teacher, *runners], protocol.warmup, protocol.runs)
    return [reading(timing, timings[0], protocol).speedup for timing in timings[1:]]


def _measured(candidate: Candidate, run: Run, teacher_ms: float) -> dict[str, Any]:
    assert run.teacher is not None
    latency, estimate = candidate.latency, candidate.estimated_ms
    if latency is None:
        assert estimate is not None
        share = estimate / run.teacher.latency.p50
    else:
        share = 1 / latency.speedup
    return {
        "student": candidate.architecture.key,
        **_knobs(asdict(candidate.architecture)),
        "parameters": candidate.parameters,
        "flops": candidate.flops,
        "ms": round(teacher_ms * share, 4),
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
