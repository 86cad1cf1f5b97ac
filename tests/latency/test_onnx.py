from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from kdnas_core.latency.onnx import input_names, onnx_of, output_name, quantise, write_onnx

SHAPE: dict[str, Any] = {
    "vocab_size": 120,
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 70,
    "initializer_range": 0.2,
}


def bert() -> PreTrainedModel:
    return BertModel(BertConfig(**SHAPE))


def roberta() -> PreTrainedModel:
    return RobertaModel(RobertaConfig(**SHAPE, type_vocab_size=1))  # counts positions from the padding


@pytest.mark.slow
@pytest.mark.parametrize("make", [bert, roberta])
def test_onnx_runtime_gives_what_torch_gives_on_padded_batches_of_any_size(
    make: Callable[[], PreTrainedModel], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    disabled = logging.root.manager.disable
    write_onnx(model, tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""
    assert logging.root.manager.disable == disabled
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(input_names(model))
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state"]
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 7), (5, 16), (3, 33), (2, 64)):
        lengths = rng.integers(1, length + 1, batch)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        ids = np.where(mask == 1, rng.integers(3, 120, (batch, length)), model.config.pad_token_id)
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, ids.shape)}
        feed = {name: values[name] for name in input_names(model)}
        (got,) = session.run(None, feed)
        with torch.no_grad():
            given = {name: torch.from_numpy(tokens) for name, tokens in feed.items()}
            expected = model(**given).last_hidden_state.numpy()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[mask == 1], expected[mask == 1], atol=1e-4)


@pytest.mark.slow
def test_a_file_says_nothing_of_the_machine_that_wrote_it(tmp_path: Path) -> None:
    write_onnx(bert(), tmp_path / "model.onnx")
    written = (tmp_path / "model.onnx").read_bytes()
    for name in ("site-packages", "onnx_model", str(Path(torch.__file__).parents[1])):
        assert name.encode() not in written


def test_a_model_is_given_token_types_where_it_tells_them_apart() -> None:
    assert input_names(bert()) == ("input_ids", "attention_mask", "token_type_ids")
    assert input_names(roberta()) == ("input_ids", "attention_mask")


@pytest.mark.slow
def test_a_classifier_gives_its_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SHAPE | {"num_labels": 3})).eval()
    assert (output_name(model), output_name(bert())) == ("logits", "last_hidden_state")
    write_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(3, 120, (2, 9))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (output,) = session.get_outputs()
    (got,) = session.run(None, feed)
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(tokens) for name, tokens in feed.items()}).logits.numpy()
    assert (output.name, got.shape) == ("logits", (2, 3))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
def test_a_quantised_model_is_smaller_near_to_float32_and_takes_any_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SHAPE | {"hidden_size": 64, "intermediate_size": 128})).eval()
    whole, small = tmp_path / "model.onnx", tmp_path / "model_int8.onnx"
    write_onnx(model, whole)
    before = whole.read_bytes()
    quantise(whole, small)
    assert capfd.readouterr().out == ""
    assert whole.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model_int8.onnx"]
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in onnx.load(small).graph.initializer}

    sessions = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (whole, small)
    ]
    for shape in ((1, 5), (3, 33)):
        ids = np.random.default_rng(0).integers(3, 120, shape)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        exact, near = (session.run(None, feed)[0].astype(np.float64) for session in sessions)
        cosine = (exact * near).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(near, axis=-1)
        assert 0.98 < cosine.min() < 1


@pytest.mark.slow
def test_a_graph_has_what_runs_fastest_and_the_model_keeps_its_attention() -> None:
    model = bert()
    before = model.config._attn_implementation
    graph = onnx_of(model).graph
    assert model.config._attn_implementation == before != "eager"
    assert not graph.value_info  # known shapes lead ONNX Runtime to a slower fusion
    assert "IsNaN" not in {node.op_type for node in graph.node}  # a guard of SDPA's, on each attention score
