from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MobileBertConfig,
    MobileBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from kdnas_core.latency import graphs as module
from kdnas_core.latency.graphs import graph_of
from kdnas_core.latency.onnx import onnx_of
from kdnas_core.latency.runtimes import session_of
from kdnas_core.spec import LatencySpec, Runtime

SHAPE: dict[str, Any] = {"vocab_size": 120, "max_position_embeddings": 70}


@pytest.fixture(autouse=True)
def own_cache(fresh_cache: Path) -> None:
    """No graph is kept before a test."""


def bert(
    layers: int = 1, hidden: int = 24, inner: int = 40, heads: int = 4, words: int = 120
) -> PreTrainedModel:
    sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
    return unlike(
        BertModel(BertConfig(**{**SHAPE, **sizes, "vocab_size": words, "num_hidden_layers": layers}))
    )


def roberta() -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "hidden_size": 36,
        "intermediate_size": 20,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
    }
    return unlike(RobertaModel(RobertaConfig(**SHAPE, **sizes, type_vocab_size=1, hidden_act="relu")))


def distilbert() -> PreTrainedModel:
    return unlike(DistilBertModel(DistilBertConfig(**SHAPE, dim=24, hidden_dim=40, n_heads=2, n_layers=2)))


def electra() -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    return unlike(ElectraModel(ElectraConfig(**SHAPE, **sizes, embedding_size=24)))


def unlike(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights of which no two are the same, as a trained one's."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def described(graph: onnx.ModelProto) -> list[object]:
    """All of a graph but the values of its weights, and names, which the exporter counts up."""
    graph = renamed(graph)
    constants = []
    for constant in graph.graph.initializer:
        is_weight = constant.data_type == onnx.TensorProto.FLOAT and constant.dims
        value: object = [] if is_weight else np.float64(numpy_helper.to_array(constant)).round(6).tolist()
        constants.append((constant.name, constant.data_type, list(constant.dims), value))
    parts = graph.graph
    return [list(parts.node), list(parts.input), list(parts.output), constants]


def renamed(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy, names = onnx.ModelProto(), dict[str, str]()
    copy.CopyFrom(graph)
    for node in copy.graph.node:
        node.name = ""
        node.output[:] = [names.setdefault(name, f"value {len(names)}") for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    return copy


def check(model: PreTrainedModel) -> None:
    """Checks that a graph is that of the exporter."""
    graph = graph_of(model)
    assert graph is not None
    assert described(graph) == described(onnx_of(model))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    ids = np.ones((3, 9), np.int64)
    (states,) = session.run(None, {each.name: ids for each in session.get_inputs()})
    assert states.shape == (3, 9, model.config.hidden_size)
    assert np.isfinite(states).all()


@pytest.mark.slow
def test_a_graph_of_any_size_is_the_one_that_would_be_exported() -> None:
    check(bert(hidden=48, inner=48, heads=3))


@pytest.mark.slow
@pytest.mark.parametrize("made", [bert, roberta, distilbert, electra])
@pytest.mark.parametrize("layers", [1, 3])
def test_so_it_is_for_every_family_and_depth(made: Callable[[], PreTrainedModel], layers: int) -> None:
    model = made()
    model.config.num_hidden_layers = layers
    check(unlike(type(model)(model.config)))


@pytest.mark.slow
def test_a_depth_is_exported_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []

    def counted(model: PreTrainedModel) -> onnx.ModelProto:
        exported.append(model.config.num_hidden_layers)
        return onnx_of(model)

    monkeypatch.setattr(module, "onnx_of", counted)
    for model in (bert(), bert(hidden=48, heads=6), bert(layers=2), bert(layers=2, inner=64)):
        assert graph_of(model) is not None
    assert exported == [1, 1, 2]  # two of one layer show that the sizes can be replaced


@pytest.mark.parametrize(
    "model",
    [
        BertForSequenceClassification(BertConfig(**SHAPE, hidden_size=24, num_attention_heads=4)),
        MobileBertModel(MobileBertConfig(num_hidden_layers=1, vocab_size=120)),
        ElectraModel(ElectraConfig(**SHAPE, hidden_size=24, num_attention_heads=4, embedding_size=16)),
    ],
    ids=["a classifier", "bottlenecks", "a factorised embedding"],
)
def test_what_is_no_plain_encoder_has_no_graph(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "onnx_of", None)  # nothing is exported for it
    assert graph_of(model) is None


@pytest.mark.slow
def test_a_model_whose_words_are_as_many_as_the_kept_graph_is_wide_is_exported_itself() -> None:
    assert graph_of(bert(words=143)) is None
    assert graph_of(bert(words=143)) is None  # as remembered


def test_a_model_too_large_for_a_graph_in_memory_is_exported_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1_000)
    assert graph_of(bert()) is None


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-int8"])
def test_a_session_to_time_is_of_the_models_size(runtime: Runtime) -> None:
    protocol = LatencySpec(budget_ms=1.0, runtime=runtime, sequence_length=16)
    session = session_of(bert(hidden=48), protocol)
    assert session.get_outputs()[0].shape[-1] == 48
