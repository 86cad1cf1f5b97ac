"""An ONNX file in use: called as the stock model is that it was made of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from kdnas_core.export.samples import SENTENCES

BATCHES = (1, 3, 12)  # sentences each: alone, and padded to the longest


class OnnxModel:
    """Called like a model of `transformers`, so that what scores one scores this.

    Attributes:
        config: of the model that it was made of.
    """

    def __init__(self, path: Path, config: PreTrainedConfig) -> None:
        self.config = config
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._inputs = [put.name for put in self._session.get_inputs()]

    def eval(self) -> OnnxModel:
        """Itself: it never learns."""
        return self

    def __call__(self, **given: torch.Tensor) -> SimpleNamespace:
        """The one output, under both names that a stock model would give it."""
        zeros = torch.zeros_like(given["input_ids"])  # token types that are left out are 0
        feed = {name: given.get(name, zeros).numpy() for name in self._inputs}
        values = torch.from_numpy(self._session.run(None, feed)[0])
        return SimpleNamespace(last_hidden_state=values, logits=values)


def padded_batches(
    tokenizer: PreTrainedTokenizerBase, length: int, names: tuple[str, ...]
) -> list[dict[str, torch.Tensor]]:
    """The sample sentences as a model is given them, in batches of several sizes.

    Args:
        tokenizer: of the model.
        length: at which sentences are cut, in tokens.
        names: of the model's inputs.
    """
    batches, start = [], 0
    for size in BATCHES:
        batch = list(SENTENCES[start : start + size])
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=length, return_tensors="pt")
        zeros = torch.zeros_like(tokens["input_ids"])
        batches.append({name: tokens.get(name, zeros) for name in names})
        start += size
    return batches


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest absolute difference of two arrays; infinite where one has what is no number."""
    difference = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")
