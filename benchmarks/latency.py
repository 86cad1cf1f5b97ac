"""Do others measure the latencies that this product shows, on what it exports, on a busy machine?

Run it with `python -m benchmarks.latency`. Students of several shapes are exported; then, for each of them
and each runtime, our protocol and an independent script (`stopwatch.py`: stock libraries alone, in a process
of its own) take turns, each timing student and teacher, while another process is busy half of the time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from scipy.stats import kendalltau

from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency.onnx import quantise, write_onnx
from kdnas_core.latency.protocol import TimedRun, time_in_turns
from kdnas_core.latency.runtimes import runner, threads
from kdnas_core.models.student import new_student, parameters, save
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, RunSpec, Runtime

SHAPES = (
    Architecture(2, 96, 384, 3),
    Architecture(2, 192, 768, 6),
    Architecture(3, 192, 768, 12),
    Architecture(2, 288, 1536, 6),
    Architecture(3, 288, 768, 3),
    Architecture(4, 288, 1536, 12),
    Architecture(3, 384, 1536, 12),
    Architecture(4, 384, 768, 6),
)
ROUNDS = 3
BUSY_S = 0.05  # the other process works so long, then sleeps so long
CLOSE = 0.02  # shapes nearer to each other than this have no order
STOPWATCH = Path(__file__).with_name("stopwatch.py")
BUSY = f"""
import time
while True:
    end = time.perf_counter() + {BUSY_S}
    while time.perf_counter() < end:
        pass
    time.sleep({BUSY_S})
"""


@dataclass(frozen=True)
class Row:
    """One student in one runtime: medians over the rounds, milliseconds."""

    shape: str
    runtime: str
    ours: float
    theirs: float
    our_teacher: float
    their_teacher: float

    @property
    def ratio(self) -> float:
        """Our latency over theirs."""
        return self.ours / self.theirs

    @property
    def speedup_ratio(self) -> float:
        """Our speed-up over the teacher, over theirs."""
        return (self.our_teacher / self.ours) / (self.their_teacher / self.theirs)


def main() -> None:
    """Prints both latencies of each student and runtime, and how well they agree."""
    teacher = load_teacher("packaged")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _export_all(teacher, folder)
        rows = []
        with _busy_half_of_the_time():
            for runtime in USUAL_RUNTIMES:
                for shape in SHAPES:
                    rows.append(_measured(teacher, shape, runtime, folder))
                    print(_line(rows[-1]), flush=True)
    print(json.dumps({"rounds": ROUNDS, **_summary(rows), "rows": [asdict(row) for row in rows]}))


def _line(row: Row) -> str:
    return (
        f"{row.shape:<24}{row.runtime:<18}{row.ours:8.3f}{row.theirs:8.3f} ms  {row.ratio:6.3f}"
        f"  speed-up {row.our_teacher / row.ours:6.2f}x {row.their_teacher / row.theirs:6.2f}x"
    )


def _summary(rows: list[Row]) -> dict[str, object]:
    by_runtime = {runtime: [row for row in rows if row.runtime == runtime] for runtime in USUAL_RUNTIMES}
    return {
        "median_ratio": statistics.median(row.ratio for row in rows),
        "median_speedup_ratio": statistics.median(row.speedup_ratio for row in rows),
        "worst_ratio": max((row.ratio for row in rows), key=lambda ratio: abs(ratio - 1)),
        "worst_speedup_ratio": max((row.speedup_ratio for row in rows), key=lambda ratio: abs(ratio - 1)),
        "by_runtime": {
            runtime: {
                "median_ratio": statistics.median(row.ratio for row in some),
                "median_speedup_ratio": statistics.median(row.speedup_ratio for row in some),
                "kendall": float(
                    kendalltau([row.ours for row in some], [row.theirs for row in some]).statistic
                ),
                "pairs_in_other_order": _other_order(some),
            }
            for runtime, some in by_runtime.items()
        },
    }


def _other_order(rows: list[Row]) -> int:
    """Pairs of shapes that we put in another order than they, though they are not close by."""
    return sum(
        (one.ours < other.ours) != (one.theirs < other.theirs) and abs(one.theirs / other.theirs - 1) > CLOSE
        for one, other in combinations(rows, 2)
    )


def _export_all(teacher: Teacher, folder: Path) -> None:
    """Students as the product exports them, each under its key, and the teacher in the same form."""
    with opened(folder / "runs.db") as store:
        numbers = {shape: _kept(store, teacher, shape) for shape in SHAPES}
    for shape, number in numbers.items():
        began = time.perf_counter()
        arguments = [
            str(number),
            str(folder / shape.key),
            "--format",
            "hf,onnx",
            "--db",
            str(folder / "runs.db"),
        ]
        subprocess.run(
            [sys.executable, "-m", "kdnas_core", "export", *arguments], check=True, capture_output=True
        )
        print(f"{shape.key} exported in {time.perf_counter() - began:.0f} s", flush=True)
    save(teacher.model, teacher.tokenizer, folder / "teacher")
    whole = folder / "teacher" / "onnx" / "model.onnx"
    whole.parent.mkdir()
    write_onnx(teacher.model, whole)
    quantise(whole, whole.with_name("model_int8.onnx"))


def _kept(store: Store, teacher: Teacher, shape: Architecture) -> int:
    """A candidate of the store with the weights that a distillation would begin with."""
    student = new_student(teacher, shape, seed=0)
    counted = {"parameters": parameters(student), "flops": shape.flops(128), "weights": 1}
    run, candidate, _ = store.import_run(RunSpec(name=shape.key), None, shape, counted)
    save(student, teacher.tokenizer, store.files(run, candidate))
    return candidate


def _measured(teacher: Teacher, shape: Architecture, runtime: Runtime, folder: Path) -> Row:
    protocol = LatencySpec(runtime=runtime)
    runners = [runner(model, protocol) for model in (new_student(teacher, shape, seed=0), teacher.model)]
    rounds = [
        (*_ours(runners, protocol), *_theirs(folder / shape.key, folder / "teacher", runtime))
        for _ in range(ROUNDS)
    ]
    ours, our_teacher, theirs, their_teacher = (statistics.median(each) for each in zip(*rounds, strict=True))
    return Row(shape.key, runtime, ours, theirs, our_teacher, their_teacher)


def _ours(runners: list[TimedRun], protocol: LatencySpec) -> list[float]:
    with exclusive(), threads(protocol):
        timings = time_in_turns(runners, protocol.warmup, protocol.runs)
    return [statistics.median(timing.samples) for timing in timings]


def _theirs(student: Path, teacher: Path, runtime: Runtime) -> list[float]:
    command = [sys.executable, "-I", str(STOPWATCH), runtime, str(student), str(teacher)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    medians = json.loads(told.splitlines()[-1])
    return [medians["student"], medians["teacher"]]


@contextmanager
def _busy_half_of_the_time() -> Iterator[None]:
    other = subprocess.Popen([sys.executable, "-I", "-c", BUSY])
    try:
        yield
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()
