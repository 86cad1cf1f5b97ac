"""The latency protocol, by which all latencies are measured.

It is the same in every runtime, with fixed threads, batch size and length. Runs of student and teacher
alternate, so that a machine that slows down does not change their ratio. A run that shared its device is
discarded and repeated: on the processor, a run whose wall time exceeds its CPU time by more than 15%.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas_core import files
from kdnas_core.architecture import Architecture
from kdnas_core.hardware import device_name
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.spec import LatencySpec, Runtime

UNCLEAN = 1.15  # wall time over CPU time
PATIENCE = 4  # times the number of runs are tried before unclean ones are accepted

GRAPH = 3  # raised when the same protocol times another graph; 2: with token types; 3: eager attention

RunOnce = Callable[[], object]
TimedRun = Callable[[], tuple[float, bool]]  # milliseconds, and whether the run had its device to itself


@dataclass(frozen=True)
class Timing:
    """The timed runs of one model: milliseconds, in order; `repeated` runs were discarded."""

    samples: tuple[float, ...]
    repeated: int
    clean: bool


def question(
    teacher: str, teacher_shape: Architecture, architecture: Architecture, protocol: LatencySpec
) -> dict[str, Any]:
    """Returns the key of a cached latency; it does not include the budget.

    Args:
        teacher: its source; for a folder its full path counts.
        teacher_shape: the teacher's architecture.
        architecture: the measured architecture.
        protocol: of the measurement.
    """
    folder = Path(teacher).expanduser()
    return {
        "teacher": str(folder.resolve()) if folder.is_dir() else teacher,
        "teacher_shape": teacher_shape.to_dict(),
        "architecture": architecture.to_dict(),
        "protocol": protocol.model_dump(exclude={"budget_ms", "budget_speedup"}),
        "device": device_of(protocol.runtime),
        "version": importlib.metadata.version(library_of(protocol.runtime)),
        "graph": GRAPH,
    }


def library_of(runtime: Runtime) -> str:
    """Returns the package of a runtime, which is the first word of its name."""
    return runtime.partition("-")[0]


def device_of(runtime: Runtime) -> str:
    """Returns the machine and its device for a runtime, for example "node-3: AMD EPYC 9B45 (2 cores)"."""
    return f"{device_name()}, {_gpu()}" if runtime == "torch-cuda" else device_name()


def _gpu() -> str:
    import torch  # it chooses one of several devices

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"


def on_processor(run: RunOnce) -> TimedRun:
    """Returns a timed run on the processor; it is clean if its thread had a core to itself.

    With several threads, the calling thread stands for all: the processor time of the others is too coarse
    for a run of milliseconds, and a small model leaves some of them idle.
    """

    def timed() -> tuple[float, bool]:
        wall, cpu = time.perf_counter(), time.thread_time()
        run()
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        return wall * 1e3, wall <= UNCLEAN * cpu

    return timed


def time_in_turns(runners: Sequence[TimedRun], warmup: int, runs: int) -> list[Timing]:
    """Times models in alternation, one run each, until each has `runs` clean runs.

    Args:
        runners: one for each model, run on this thread.
        warmup: uncounted runs of each.
        runs: counted runs of each.
    """
    for _ in range(warmup):
        for run in runners:
            run()
    taken: list[list[tuple[float, bool]]] = [[] for _ in runners]
    for _ in range(PATIENCE * runs):
        if all(sum(clean for _, clean in timed) >= runs for timed in taken):
            break
        for run, timed in zip(runners, taken, strict=True):
            timed.append(run())
    return [_timing(timed, runs) for timed in taken]


def _timing(timed: Sequence[tuple[float, bool]], runs: int) -> Timing:
    clean = [milliseconds for milliseconds, is_clean in timed if is_clean]
    if len(clean) >= runs:
        return Timing(tuple(clean[:runs]), len(timed) - len(clean), clean=True)
    return Timing(tuple(milliseconds for milliseconds, _ in timed), 0, clean=False)


def reading(timing: Timing, teacher: Timing, protocol: LatencySpec) -> LatencyReading:
    """Makes the reading of a model's timing and the teacher's of the same session."""
    return LatencyReading(
        p50=float(np.percentile(timing.samples, 50)),
        p95=float(np.percentile(timing.samples, 95)),
        samples=tuple(round(sample, 5) for sample in timing.samples),
        teacher_p50=float(np.percentile(teacher.samples, 50)),
        runtime=protocol.runtime,
        dtype="int8" if protocol.runtime == "onnxruntime-int8" else "float32",
        threads=protocol.threads,
        batch_size=protocol.batch_size,
        sequence_length=protocol.sequence_length,
        device=device_of(protocol.runtime),
        repeated=timing.repeated,
        clean=timing.clean and teacher.clean,
    )


def recall_latency(question: dict[str, Any]) -> LatencyReading | None:
    """Returns the cached reading for a key made by `question`."""
    answer = files.recall("latency", question)
    return None if answer is None else LatencyReading.from_dict(answer)
