"""Exports an encoder to ONNX, with dynamic batch size and length, and quantises it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import torch
from torch import nn
from transformers import PreTrainedModel

from kdnas_core.models.targets import has_segments


class _Positional(nn.Module):
    """A model that takes the tensors of `input_names` in order and returns that of `output_name`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.names = input_names(model)
        self.output = output_name(model)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(**dict(zip(self.names, tensors, strict=True)))[self.output]
        return output


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Returns the model's inputs by their tokenizer names: with token types if it has segments."""
    return ("input_ids", "attention_mask", *(["token_type_ids"] if has_segments(model.config) else []))


def output_name(model: PreTrainedModel) -> str:
    """Returns `logits` for a classifier, else `last_hidden_state`."""
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    return "logits" if classifies else "last_hidden_state"


def write_onnx(model: PreTrainedModel, path: Path) -> None:
    """Exports an encoder or a classifier in float32, with dynamic batch size and length.

    The inputs are `input_names`, int64 of shape (batch, length); the output is `output_name`.
    """
    with _quiet():
        _program(model).save(path, external_data=False)


def onnx_of(model: PreTrainedModel) -> onnx.ModelProto:
    """Exports as `write_onnx` does, to memory; of at most 2 GB."""
    with _quiet():
        exported: onnx.ModelProto = _program(model).model_proto
    return exported


def _program(model: PreTrainedModel) -> torch.onnx.ONNXProgram:
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    names = input_names(model)
    with _no_collection(), _eager_attention(model):
        # dynamo: the older exporter runs with transformers 5 but gives wrong numbers
        program = torch.onnx.export(
            _Positional(model).eval(),
            tuple(ids.clone() for _ in names),  # the exporter would merge inputs that are the same tensor
            dynamo=True,
            input_names=list(names),
            output_names=[output_name(model)],
            dynamic_shapes=(tuple(axes for _ in names),),
            verbose=False,
        )
        assert program is not None
        _strip(program)
        return program


@contextlib.contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model compute attention by plain operations, whose graph is faster than that of SDPA."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _strip(program: torch.onnx.ONNXProgram) -> None:
    """Removes what the exporter notes on each node: its source, and the shapes of its outputs.

    The source names folders of this machine. Where shapes are known, ONNX Runtime fuses additions with the
    layer normalisation after them, which is slower on processors.
    """
    graph = program.model.graph
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for output in node.outputs:
            if not output.is_graph_output():
                _forget(output)
    for weight in graph.initializers.values():  # their tensors know it too
        _forget(weight)


def _forget(value: onnx_ir.Value) -> None:
    value.metadata_props.clear()
    value.shape = value.type = None


def quantise(path: Path, out: Path) -> None:
    """Quantises a model of `write_onnx` to 8-bit weights by ONNX Runtime's dynamic quantisation.

    Activations are scaled at run time, so no calibration texts are needed. Weights have one scale a column:
    as fast as one scale a matrix, and several times closer to float32. They use 7 of the 8 bits, since on
    processors without VNNI the sum of two full products overflows ONNX Runtime's 16 bits.

    Args:
        path: of the model in float32.
        out: path of the 8-bit model.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(path, out, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disables garbage collection, which would traverse the exporter's graphs repeatedly."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporter's progress lines and warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
