from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel

from kdnas_core.measure.onnx_model import write_onnx

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
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state"]
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 7), (5, 16), (3, 33), (2, 64)):
        lengths = rng.integers(1, length + 1, batch)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        ids = np.where(mask == 1, rng.integers(3, 120, (batch, length)), model.config.pad_token_id)
        (got,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            expected = model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).last_hidden_state.numpy()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[mask == 1], expected[mask == 1], atol=1e-4)
