"""Prepares a model to be timed in a runtime: ONNX Runtime or torch, on the processor or with CUDA."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from kdnas_core.errors import BadInput
from kdnas_core.latency.graphs import graph_of
from kdnas_core.latency.onnx import input_names, quantise, write_onnx
from kdnas_core.latency.protocol import RunOnce, TimedRun, on_processor
from kdnas_core.spec import LatencySpec, Runtime

Feed = dict[str, NDArray[np.int64]]


def check_runtime(runtime: Runtime) -> None:
    """Refuses a runtime that this machine lacks.

    Raises:
        BadInput: it needs a CUDA device, and there is none.
    """
    if runtime == "torch-cuda" and not torch.cuda.is_available():
        raise BadInput(
            "The runtime 'torch-cuda' needs a CUDA device and a torch built for it, and there is none here; "
            "choose 'torch', 'onnxruntime' or 'onnxruntime-int8'."
        )


def runner(model: PreTrainedModel, protocol: LatencySpec) -> TimedRun:
    """Returns a timed forward pass of a model on fixed random tokens.

    Args:
        model: an encoder or classifier, on the processor, in float32; not changed.
        protocol: has the runtime, threads, batch size and sequence length.

    Raises:
        BadInput: this machine lacks the runtime.
    """
    check_runtime(protocol.runtime)
    if protocol.runtime == "torch-cuda":
        return on_cuda(_eager(_on_current_device(model), feed_of(model, protocol)))
    if protocol.runtime == "torch":
        return on_processor(_eager(model, feed_of(model, protocol)))
    return session_runner(session_of(model, protocol), model, protocol)


def session_runner(
    session: onnxruntime.InferenceSession, model: PreTrainedModel, protocol: LatencySpec
) -> TimedRun:
    """As `runner`, for an ONNX Runtime session of the model."""
    feed = feed_of(model, protocol)
    return on_processor(lambda: session.run(None, feed))


@contextlib.contextmanager
def threads(protocol: LatencySpec) -> Iterator[None]:
    """Sets torch's threads to the protocol's for a `with` block around a whole timing.

    An ONNX Runtime session has its own threads. Not set in each run, since setting takes time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(protocol.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def feed_of(model: PreTrainedModel, protocol: LatencySpec) -> Feed:
    """Returns the inputs of a model: fixed random tokens of the protocol's batch size and length."""
    shape = (protocol.batch_size, protocol.sequence_length)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, shape)
    values = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: values.get(name, ids) for name in input_names(model)}


def session_of(model: PreTrainedModel, protocol: LatencySpec) -> onnxruntime.InferenceSession:
    """Makes an ONNX Runtime session in float32 or with 8-bit weights, for any batch size and length.

    It is to be timed: where it can, it has the model's graph with random weights, which is made sooner.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if (graph := graph_of(model)) is not None:
            path.write_bytes(graph.SerializeToString())
        else:
            write_onnx(model, path)
        if protocol.runtime == "onnxruntime-int8":
            path, whole = path.with_stem("model_int8"), path
            quantise(whole, path)
        return session_from(path, protocol)


def session_from(path: Path, protocol: LatencySpec) -> onnxruntime.InferenceSession:
    """Makes a session from a file of `write_onnx` or `quantise`, with the protocol's threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _on_current_device(model: PreTrainedModel) -> PreTrainedModel:
    copied = copy.deepcopy(model)
    nn.Module.to(copied, "cuda")
    return copied


def _eager(model: PreTrainedModel, feed: Feed) -> RunOnce:
    """A pass of the stock `transformers` model with its default attention implementation."""
    tensors = {name: torch.from_numpy(values).to(model.device) for name, values in feed.items()}

    def run() -> object:
        with torch.inference_mode():
            return model(**tensors)

    return run


def on_cuda(run: RunOnce) -> TimedRun:
    """Returns a run on the current CUDA device, timed by events; clean if no other process uses the device.

    The time between two events on the stream includes the waits for the processor to launch the next kernel,
    most of the time for a small model. NVIDIA's management library (package pynvml) lists the device's
    processes. Without it, or if a container hides other processes, every run counts as clean. Graphical
    programs are not counted.
    """

    def timed() -> tuple[float, bool]:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        is_alone = _processes() <= 1  # this process counts too
        torch.cuda.synchronize()
        begun.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        return float(begun.elapsed_time(ended)), is_alone

    return timed


def _processes() -> int:
    """The number of processes on the current CUDA device; 0 if unknown.

    They are counted and not compared by id, since ids differ inside a container.
    """
    try:
        listed: str = torch.cuda.list_gpu_processes()
    except Exception:  # the management library has its own error types
        return 0
    return sum(line.startswith("process ") for line in listed.splitlines())
