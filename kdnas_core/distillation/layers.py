"""What the layers of a student can be and are: the least error for its width, and which layers are alike.

Both are measured on the tokens of held-out texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.distillation.cka import Vectors, cka, gram_of

FLOOR_TOKENS, FEWEST = 8_000, 4  # of the latter, for each dimension
SIMILARITY_TOKENS = 1_000  # a Gram matrix is as large as their number squared
_BATCH = 8  # texts: no more than are needed are read


@dataclass(frozen=True)
class LayerSample:
    """Held-out texts, and the teacher's layers on them.

    Attributes:
        texts: enough for the tokens that are used.
        length: at which they are cut, in tokens.
        tokenizer: the teacher's, and its students'.
        teacher: its layers 0..N.
    """

    texts: Sequence[str]
    length: int
    tokenizer: PreTrainedTokenizerBase
    teacher: Sequence[Vectors]

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int
    ) -> LayerSample:
        """Reads the texts with the teacher."""
        states = layer_states(model, tokenizer, texts, length, SIMILARITY_TOKENS)
        return cls(texts, length, tokenizer, list(map(_vectors, states)))

    def similarity(self, student: PreTrainedModel) -> NDArray[np.float64]:
        """Returns the CKA of each layer 0..M of a student with each of its teacher, (M + 1, N + 1)."""
        states = layer_states(student, self.tokenizer, self.texts, self.length, SIMILARITY_TOKENS)
        return np.array([[cka(own, other) for other in self.teacher] for own in map(_vectors, states)])

    @property
    def of_teacher(self) -> NDArray[np.float64]:
        """CKA of each two teacher layers, (N + 1, N + 1)."""
        return np.array([[cka(own, other) for other in self.teacher] for own in self.teacher])


def _vectors(states: torch.Tensor) -> Vectors:
    gram = gram_of(states)
    np.fill_diagonal(gram, 0)
    return Vectors.of(gram)


def floors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int
) -> NDArray[np.float64]:
    """Returns for each layer 0..N of a teacher, by width 1..H, the least error of a student of that width.

    It is the share of the layer's variance outside the best subspace of so many dimensions: no linear map of
    fewer comes nearer (Eckart and Young, 1936). It is NaN where there are too few tokens to tell.

    Args:
        model: the teacher.
        tokenizer: the teacher's.
        texts: held out.
        length: at which texts are cut, in tokens.
    """
    spreads: list[_Spread] = []
    for of_layers in _batches(model, tokenizer, texts, length, FLOOR_TOKENS):
        spreads = spreads or [_Spread.empty(states.shape[1]) for states in of_layers]
        spreads = [spread.with_more(states) for spread, states in zip(spreads, of_layers, strict=True)]
    return np.array([spread.outside() for spread in spreads])


@dataclass(frozen=True)
class _Spread:
    """Sums over states, of which their covariance is made: the states of all layers would fill the memory."""

    count: int
    sums: torch.Tensor
    products: torch.Tensor

    @classmethod
    def empty(cls, width: int) -> _Spread:
        return cls(0, torch.zeros(width).double(), torch.zeros(width, width).double())

    def with_more(self, states: torch.Tensor) -> _Spread:
        more = states.double()
        return _Spread(self.count + len(more), self.sums + more.sum(0), self.products + more.T @ more)

    def outside(self) -> NDArray[np.float64]:
        """The share of the variance outside the best subspace of width 1..H."""
        width = len(self.sums)
        if self.count < FEWEST * width:
            return np.full(width, np.nan)
        scatter = self.products - torch.outer(self.sums, self.sums) / self.count
        values = torch.linalg.eigvalsh(scatter).flip(0).clamp(min=0).numpy()
        total = values.sum()
        return np.clip(1 - np.cumsum(values) / total, 0, 1) if total > 0 else np.zeros(width)


def layer_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    length: int,
    tokens: int,
) -> list[torch.Tensor]:
    """Returns the hidden states of each layer 0..M of a model on the first tokens of texts, (tokens, H)."""
    read = list(_batches(model, tokenizer, texts, length, tokens))
    return [torch.cat(of_layer)[:tokens] for of_layer in zip(*read, strict=True)]


@torch.inference_mode()
def _batches(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, tokens: int
) -> Iterator[list[torch.Tensor]]:
    """The states of each layer on the real tokens of some texts at a time, until there are enough tokens."""
    known = 0
    for first in range(0, len(texts), _BATCH):
        some = list(texts[first : first + _BATCH])
        given = tokenizer(some, truncation=True, max_length=length, padding=True, return_tensors="pt")
        is_real = given["attention_mask"].bool()
        found = model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], output_hidden_states=True
        )
        yield [states[is_real].float() for states in found.hidden_states]
        known += int(is_real.sum())
        if known >= tokens:
            return
