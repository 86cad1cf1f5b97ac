"""An encoder as an ONNX model: what ONNX Runtime is given to run, with any batch size and length."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import PreTrainedModel


class _Positional(nn.Module):
    """A model that takes the tensors of `input_names` in order, and gives back that of `output_name`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.names = input_names(model)
        self.output = output_name(model)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(**dict(zip(self.names, tensors, strict=True)))[self.output]
        return output


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """What the model is given, as a tokenizer names it: token types too, where it tells them apart."""
    tells_types_apart = getattr(model.config, "type_vocab_size", 1) > 1
    return ("input_ids", "attention_mask", *(["token_type_ids"] if tells_types_apart else []))


def output_name(model: PreTrainedModel) -> str:
    """What comes out: `logits` of a classifier, else `last_hidden_state`."""
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    return "logits" if classifies else "last_hidden_state"


def write_onnx(model: PreTrainedModel, path: Path) -> None:
    """Writes an encoder or a classifier in float32, with dynamic batch size and length.

    Its inputs are those of `input_names`, int64 of shape (batch, length); its output is that of
    `output_name`.
    """
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    names = input_names(model)
    with _quiet(), _no_collection():
        # dynamo: the older exporter runs with transformers 5 but gives wrong numbers
        program = torch.onnx.export(
            _Positional(model).eval(),
            tuple(ids.clone() for _ in names),  # the exporter takes one tensor given twice for one input
            dynamo=True,
            input_names=list(names),
            output_names=[output_name(model)],
            dynamic_shapes=(tuple(axes for _ in names),),
            verbose=False,
        )
        assert program is not None
        _forget_origin(program)
        program.save(path, external_data=False)


def _forget_origin(program: torch.onnx.ONNXProgram) -> None:
    """Takes out the exporter's notes of which lines made each node: they name folders of this machine."""
    graph = program.model.graph
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()


def quantise(path: Path, out: Path) -> None:
    """Writes an ONNX model of `write_onnx` with 8-bit weights: ONNX Runtime's dynamic quantisation.

    Activations are scaled as they come, so that no texts are needed to calibrate it. Weights are scaled by
    the column: as fast as one scale for a whole matrix, and several times nearer to float32. They use 7 of
    the 8 bits: on processors without VNNI the sum of two full products does not fit ONNX Runtime's 16 bits.

    Args:
        path: of the model in float32.
        out: where the 8-bit one is written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the shapes in the exporter's notes trip the quantiser's own inference
    with _quiet():
        quantize_dynamic(model, out, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which goes over the exporter's graphs again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own progress lines and advice, which would land amid ours."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
