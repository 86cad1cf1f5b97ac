"""The latency protocol: how every millisecond that the product shows was measured. The only one.

In ONNX Runtime, the runtime that ships, with fixed threads, batch and length. Student and teacher take
turns, run by run, so that their ratio survives a machine that slows down meanwhile. A run whose wall time
exceeds its CPU time by more than 15% had to share its core: it is thrown away and repeated.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdnas_core.architecture import Architecture
from kdnas_core.measure.reading import LatencyReading, device_name
from kdnas_core.spec import LatencySpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNCLEAN = 1.15  # wall time over CPU time
PATIENCE = 4  # times the wanted runs that may be tried before unclean ones are taken

RunOnce = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The timed runs of one model: milliseconds, in order; `repeated` were thrown away."""

    samples: tuple[float, ...]
    repeated: int
    clean: bool


def question(
    teacher: str, teacher_shape: Architecture, architecture: Architecture, protocol: LatencySpec
) -> dict[str, Any]:
    """What a remembered latency depends on; the budget is not part of it.

    Args:
        teacher: its source; a folder counts by its full path.
        teacher_shape: its own architecture, beside which a student is timed.
        architecture: what was measured.
        protocol: how.
    """
    folder = Path(teacher).expanduser()
    return {
        "teacher": str(folder.resolve()) if folder.is_dir() else teacher,
        "teacher_shape": teacher_shape.to_dict(),
        "architecture": architecture.to_dict(),
        "protocol": protocol.model_dump(exclude={"budget_ms", "budget_speedup"}),
        "device": device_name(),
        "version": importlib.metadata.version("onnxruntime"),
    }


def onnx_runner(model: PreTrainedModel, protocol: LatencySpec) -> RunOnce:
    """One forward pass of a model in ONNX Runtime on fixed random tokens, ready to be timed.

    Args:
        model: any encoder; its weights do not matter to its speed.
        protocol: threads, batch size and sequence length.
    """
    import onnxruntime

    from kdnas_core.measure.onnx_model import write_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.threads
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(model, Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(
            Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
    shape = (protocol.batch_size, protocol.sequence_length)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, shape)
    feed = {"input_ids": ids, "attention_mask": np.ones(shape, dtype=np.int64)}
    return lambda: session.run(None, feed)


def time_in_turns(runners: Sequence[RunOnce], warmup: int, runs: int) -> list[Timing]:
    """Times models in turns, one run each, until every one has `runs` clean runs.

    Args:
        runners: what to run, all on this thread.
        warmup: runs of each that are not counted.
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
            timed.append(_timed(run))
    return [_timing(timed, runs) for timed in taken]


def _timed(run: RunOnce) -> tuple[float, bool]:
    """(milliseconds of wall time, whether the thread had its core to itself)."""
    wall, cpu = time.perf_counter(), time.thread_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return wall * 1e3, wall <= UNCLEAN * cpu


def _timing(timed: Sequence[tuple[float, bool]], runs: int) -> Timing:
    clean = [milliseconds for milliseconds, is_clean in timed if is_clean]
    if len(clean) >= runs:
        return Timing(tuple(clean[:runs]), len(timed) - len(clean), clean=True)
    return Timing(tuple(milliseconds for milliseconds, _ in timed), 0, clean=False)


def reading(timing: Timing, teacher: Timing, protocol: LatencySpec) -> LatencyReading:
    """A model's timing, with the teacher's of the same session, as it is stored and shown."""
    return LatencyReading(
        p50=float(np.percentile(timing.samples, 50)),
        p95=float(np.percentile(timing.samples, 95)),
        samples=tuple(round(sample, 5) for sample in timing.samples),
        teacher_p50=float(np.percentile(teacher.samples, 50)),
        runtime=protocol.runtime,
        dtype="float32",
        threads=protocol.threads,
        batch_size=protocol.batch_size,
        sequence_length=protocol.sequence_length,
        device=device_name(),
        repeated=timing.repeated,
        clean=timing.clean and teacher.clean,
    )
