"""An encoder as an ONNX model: what ONNX Runtime is given to run, with any batch size and length."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel


class _LastHiddenState(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return output


def write_onnx(model: PreTrainedModel, path: Path) -> None:
    """Writes `input_ids, attention_mask -> last_hidden_state` in float32 with dynamic batch and length."""
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet(), _no_collection():
        # dynamo: the older exporter runs with transformers 5 but gives wrong numbers
        torch.onnx.export(
            _LastHiddenState(model).eval(),
            (ids, torch.ones_like(ids)),
            path,
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_shapes=(axes, axes),
            external_data=False,
            verbose=False,
        )


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
