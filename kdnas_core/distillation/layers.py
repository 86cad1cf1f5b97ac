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

from kdnas_core.distillation.cka import Gram, cka, gram_of

FLOOR_TOKENS, FEWEST = 8_000, 4  # of the latter, for each dimension
SIMILARITY_TOKENS = 1_000  # a Gram matrix is as large as their number squared
_BATCH = 32


@dataclass(frozen=True)
class TeacherLayers:
    """What students of a teacher are compared with.

    Attributes:
        floors: for each layer 0..N, by width 1..H the least error of a student layer of that width, in units
            of the layer's variance: the variance outside the best subspace of that many dimensions.
        similarity: CKA of each two layers, (N + 1, N + 1).
    """

    floors: NDArray[np.float64]
    similarity: NDArray[np.float64]


@dataclass(frozen=True)
class LayerSample:
    """Held-out texts, and the teacher's layers on them.

    Attributes:
        texts: enough for the tokens that are used.
        length: at which they are cut, in tokens.
        tokenizer: the teacher's, and its students'.
        grams: of each teacher layer 0..N.
    """

    texts: Sequence[str]
    length: int
    tokenizer: PreTrainedTokenizerBase
    grams: Sequence[Gram]

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int
    ) -> LayerSample:
        """Reads the texts with the teacher."""
        grams = [
            gram_of(states) for states in layer_states(model, tokenizer, texts, length, SIMILARITY_TOKENS)
        ]
        return cls(texts, length, tokenizer, [_without_diagonal(gram) for gram in grams])

    def similarity(self, student: PreTrainedModel) -> NDArray[np.float64]:
        """Returns the CKA of each layer 0..M of a student with each of its teacher, (M + 1, N + 1)."""
        states = layer_states(student, self.tokenizer, self.texts, self.length, SIMILARITY_TOKENS)
        grams = [_without_diagonal(gram_of(each)) for each in states]
        return np.array([[cka(gram, other) for other in self.grams] for gram in grams])


def teacher_layers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int
) -> TeacherLayers:
    """Measures the layers of a teacher.

    Args:
        model: the teacher.
        tokenizer: the teacher's.
        texts: held out.
        length: at which texts are cut, in tokens.
    """
    states = layer_states(model, tokenizer, texts, length, FLOOR_TOKENS)
    sample = LayerSample.of(model, tokenizer, texts, length)
    similarity = [[cka(gram, other) for other in sample.grams] for gram in sample.grams]
    return TeacherLayers(np.array([floors(each) for each in states]), np.array(similarity))


def floors(states: torch.Tensor) -> NDArray[np.float64]:
    """Returns the share of the variance of states (tokens, H) outside their best subspace of width 1..H.

    No linear map of fewer dimensions comes nearer to them (Eckart and Young, 1936). It is NaN where there are
    too few tokens to tell.
    """
    if len(states) < FEWEST * states.shape[1]:
        return np.full(states.shape[1], np.nan)
    centred = states.double() - states.double().mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0).numpy()
    total = values.sum()
    return np.clip(1 - np.cumsum(values) / total, 0, 1) if total > 0 else np.zeros(len(values))


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


def _without_diagonal(gram: Gram) -> Gram:
    np.fill_diagonal(gram, 0)
    return gram
