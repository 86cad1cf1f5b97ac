"""ONNX graphs for timing: exported once a depth, with the sizes of each model put in.

The exporter takes one to two seconds a layer. Two encoders of one family and depth differ in the shapes of
their weights and in some constants, so the graph of a small one is kept, and filled for others. Its weights
are random, which changes no latency. What is shipped is exported from the model itself.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from numpy.typing import NDArray
from onnx import numpy_helper
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from kdnas_core import files
from kdnas_core.architecture import Architecture
from kdnas_core.latency.onnx import onnx_of
from kdnas_core.latency.protocol import GRAPH
from kdnas_core.models.families import BOTTLENECKS, FAMILIES
from kdnas_core.models.student import shape_of_model, student_config

MOST_BYTES = 1_500_000_000  # of a graph in memory; its format ends at 2 GB
POWERS = (-0.5, -0.25, 0.25, 0.5)  # of the head size, by which attention is scaled
FEW = 4  # elements of an integer constant that says a shape; longer ones are tables
SPREAD = 0.02  # of random weights, as BERT's


@dataclass(frozen=True)
class _Sizes:
    """The numbers by which graphs of one depth differ; for kept graphs, primes and products of primes."""

    hidden: int
    inner: int
    head: int
    heads: int

    @classmethod
    def of(cls, shape: Architecture) -> _Sizes:
        heads = shape.attention_heads
        return cls(shape.hidden_size, shape.intermediate_size, shape.hidden_size // heads, heads)


_KEPT, _OTHER = _Sizes(13 * 11, 211, 13, 11), _Sizes(17 * 7, 151, 17, 7)


def graph_of(model: PreTrainedModel) -> onnx.ModelProto | None:
    """Returns the graph of an encoder with random weights, as `write_onnx` exports it.

    The kept graph is cached. None where the sizes of the model cannot be put into it: the model is no plain
    encoder, or too large for a graph in memory.
    """
    shape = _plain_shape(model)
    if shape is None or _bytes_of(model) > MOST_BYTES:
        return None
    kept = _kept(model, shape)
    return None if kept is None else _filled(kept, _Sizes.of(shape))


def _plain_shape(model: PreTrainedModel) -> Architecture | None:
    family = model.config.model_type
    if family == BOTTLENECKS or family not in FAMILIES or type(model) is not type(_empty(model)):
        return None
    shape = shape_of_model(model)
    return shape if shape.embedding_size is None else None


def _empty(model: PreTrainedModel) -> PreTrainedModel:
    with torch.device("meta"):
        empty: PreTrainedModel = AutoModel.from_config(model.config)
    return empty


def _bytes_of(model: PreTrainedModel) -> int:
    return sum(4 * parameter.numel() for parameter in model.parameters())


def _kept(model: PreTrainedModel, shape: Architecture) -> onnx.ModelProto | None:
    """The graph of a small model of this depth, without its weights; None if its sizes cannot be replaced."""
    question = {
        "versions": [torch.__version__, transformers.__version__, onnx.__version__],
        "graph": GRAPH,
        "config": _config(model, shape, _KEPT).to_diff_dict(),
    }
    answer = files.recall("graphs", question)
    if answer is None:
        graph = _replaceable(model, shape)
        answer = {"graph": graph and base64.b64encode(graph.SerializeToString()).decode()}
        files.remember("graphs", question, answer)
    if answer["graph"] is None:
        return None
    return onnx.ModelProto.FromString(base64.b64decode(answer["graph"]))


def _replaceable(model: PreTrainedModel, shape: Architecture) -> onnx.ModelProto | None:
    """As `_kept`, exported now: graphs of one layer must differ by their sizes alone; others repeat it."""
    if shape.layers > 1:
        one_layer = _kept(model, replace(shape, layers=1))
        return None if one_layer is None else _exported(model, shape, _KEPT)
    graph = _exported(model, shape, _KEPT)
    return graph if _is_same(_sized(graph, _KEPT, _OTHER), _exported(model, shape, _OTHER)) else None


def _config(model: PreTrainedModel, shape: Architecture, sizes: _Sizes) -> PreTrainedConfig:
    """The config of a model of that family and depth with other sizes."""
    sized = replace(
        shape, hidden_size=sizes.hidden, intermediate_size=sizes.inner, attention_heads=sizes.heads
    )
    return student_config(model.config, sized)


def _reference(config: PreTrainedConfig) -> PreTrainedModel:
    """A model no two of whose weights are the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference: PreTrainedModel = AutoModel.from_config(config)
        for parameter in reference.parameters():
            torch.nn.init.normal_(parameter, std=SPREAD)
    return reference.eval()


def _exported(model: PreTrainedModel, shape: Architecture, sizes: _Sizes) -> onnx.ModelProto:
    """The graph of a reference, whose weights are empty."""
    graph = onnx_of(_reference(_config(model, shape, sizes)))
    for weight in filter(_is_weight, graph.graph.initializer):
        weight.CopyFrom(onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.dims))
    return graph


def _is_weight(constant: onnx.TensorProto) -> bool:
    return constant.data_type == onnx.TensorProto.FLOAT and len(constant.dims) > 0


def _sized(kept: onnx.ModelProto, before: _Sizes, after: _Sizes) -> onnx.ModelProto:
    """A copy of a graph with other sizes."""
    graph = onnx.ModelProto()
    graph.CopyFrom(kept)
    sizes = dict(zip(asdict(before).values(), asdict(after).values(), strict=True))
    for value in graph.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value in sizes:
                dim.dim_value = sizes[dim.dim_value]
    for constant in graph.graph.initializer:
        if _is_weight(constant):
            constant.dims[:] = [sizes.get(dim, dim) for dim in constant.dims]
        else:
            known = numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(_replaced(known, sizes, before, after), constant.name))
    return graph


def _replaced(value: NDArray[Any], sizes: dict[int, int], before: _Sizes, after: _Sizes) -> NDArray[Any]:
    if value.dtype == np.int64 and value.size <= FEW:
        return np.array([sizes.get(int(each), int(each)) for each in value.flat], np.int64).reshape(
            value.shape
        )
    if value.dtype == np.float32 and value.ndim == 0:
        for power in POWERS:
            if np.isclose(value, before.head**power, rtol=1e-6):
                return np.array(after.head**power, np.float32)
    return value


def _is_same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two graphs are the same but for rounding."""
    constants, others = one.graph.initializer, other.graph.initializer
    return (
        list(one.graph.node) == list(other.graph.node)
        and list(one.graph.input) == list(other.graph.input)
        and list(one.graph.output) == list(other.graph.output)
        and [(each.name, *each.dims) for each in constants] == [(each.name, *each.dims) for each in others]
        and all(map(_is_same_constant, constants, others))
    )


def _is_same_constant(one: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    if one.data_type != other.data_type or _is_weight(one):
        return one.data_type == other.data_type
    return np.allclose(numpy_helper.to_array(one), numpy_helper.to_array(other), rtol=1e-6, atol=0)


def _filled(kept: onnx.ModelProto, sizes: _Sizes) -> onnx.ModelProto:
    """A graph of these sizes with random weights."""
    graph, random = _sized(kept, _KEPT, sizes), np.random.default_rng(0)
    for weight in filter(_is_weight, graph.graph.initializer):
        values = random.standard_normal(tuple(weight.dims), np.float32) * np.float32(SPREAD)
        weight.raw_data = values.tobytes()
    return graph
