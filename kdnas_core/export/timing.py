"""The latency of exported files, measured again by the protocol, beside the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from transformers import PreTrainedModel

from kdnas_core.distillation.teacher import Teacher
from kdnas_core.measure.device import device
from kdnas_core.measure.latency import TimedRun, on_processor, reading, time_in_turns
from kdnas_core.measure.onnx_model import quantise, write_onnx
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.measure.runtimes import check_runtime, runner, threads
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
    check_runtime(protocol.runtime)
    with device(waiting), _runners(student, onnx, teacher, protocol) as runners:
        known = _read(runners, protocol)
        return known if known.clean else _read(runners, protocol)  # as a bench does


def _read(runners: list[TimedRun], protocol: LatencySpec) -> LatencyReading:
    with threads(protocol):
        timings = time_in_turns(runners, protocol.warmup, protocol.runs)
    return reading(timings[-1], timings[0], protocol)


@contextmanager
def _runners(
    student: PreTrainedModel, onnx: Path | None, teacher: Teacher, protocol: LatencySpec
) -> Iterator[list[TimedRun]]:
    """The teacher's run, and the student's: of its exported file where there is one for the runtime."""
    if onnx is None or not protocol.runtime.startswith("onnxruntime"):
        yield [runner(teacher.model, protocol), runner(student, protocol)]
        return
    name = onnx_file(protocol.runtime)
    with TemporaryDirectory() as folder:
        path = Path(folder) / FP32
        write_onnx(teacher.model, path)
        if name == INT8:
            quantise(path, path.with_name(INT8))
        files = [(path.with_name(name), teacher.model), (onnx / name, student)]
        yield [_of_file(each, model.config.vocab_size, protocol) for each, model in files]


def _of_file(path: Path, words: int, protocol: LatencySpec) -> TimedRun:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, words, (protocol.batch_size, protocol.sequence_length))
    values = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed = {put.name: values.get(put.name, ids) for put in session.get_inputs()}
    return on_processor(lambda: session.run(None, feed))
