"""The latency of exported files, measured again by the protocol, beside the teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from kdnas_core.distillation.teacher import Teacher
from kdnas_core.measure.device import device
from kdnas_core.measure.latency import TimedRun, reading, time_in_turns
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.measure.runtimes import runner, session_from, session_runner, threads
from kdnas_core.spec import LatencySpec

FP32, INT8 = "model.onnx", "model_int8.onnx"


def onnx_file(runtime: str) -> str:
    """The file that a runtime of ONNX Runtime runs."""
    return INT8 if runtime.endswith("int8") else FP32


def timed_again(
    student: PreTrainedModel,
    onnx: Path | None,
    teacher: Teacher,
    protocol: LatencySpec,
    waiting: Callable[[], None],
) -> LatencyReading:
    """One reading; nothing that was remembered is taken for it.

    Args:
        student: as it was loaded from the export.
        onnx: the folder of its exported ONNX files; None where there are none.
        teacher: beside which it is timed.
        protocol: how, and in which runtime.
        waiting: as for `device`.

    Raises:
        BadInput: this machine lacks the runtime.
    """
    with device(waiting):
        runners = [runner(teacher.model, protocol), _student(student, onnx, protocol)]
        known = _read(runners, protocol)
        return known if known.clean else _read(runners, protocol)  # as a bench does


def _read(runners: list[TimedRun], protocol: LatencySpec) -> LatencyReading:
    with threads(protocol):
        timings = time_in_turns(runners, protocol.warmup, protocol.runs)
    return reading(timings[-1], timings[0], protocol)


def _student(student: PreTrainedModel, onnx: Path | None, protocol: LatencySpec) -> TimedRun:
    """A run of its exported file, where there is one for the runtime."""
    if onnx is None or not protocol.runtime.startswith("onnxruntime"):
        return runner(student, protocol)
    return session_runner(session_from(onnx / onnx_file(protocol.runtime), protocol), student, protocol)
