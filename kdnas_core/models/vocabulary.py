"""The part of the vocabulary that a proxy set uses.

Mini-KD trains only these rows of the embedding: with 250,002 words, a step would otherwise spend most of its
time on rows with zero gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.models.targets import Texts

Renumbered = TypeVar("Renumbered", bound=Texts)


@dataclass(frozen=True)
class Vocabulary:
    """The words in use, renumbered in the order of their ids.

    Attributes:
        rows: (used,) their ids in the whole vocabulary, ascending.
        numbers: (V,) the new number of each id, -1 if it is not used.
    """

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def used(cls, sets: Sequence[Texts], size: int, pad: int) -> Vocabulary:
        """Returns the words of these texts, of a vocabulary of `size` words.

        All ids up to the padding's are kept, so that the padding keeps its id: RoBERTa's families count
        positions from it.
        """
        of_texts = [ids for texts in sets for ids in (texts.ids, texts.labels[texts.labels != NOT_HIDDEN])]
        return cls.of_words(np.concatenate(of_texts), size, pad)

    @classmethod
    def of_words(cls, ids: NDArray[np.int64], size: int, pad: int) -> Vocabulary:
        """Returns the vocabulary of these ids, which may repeat, and all ids up to the padding's."""
        rows = np.unique(np.concatenate([np.arange(pad + 1), ids]))
        numbers = np.full(size, -1)
        numbers[rows] = np.arange(len(rows))
        return cls(rows, numbers)

    def renumbered(self, texts: Renumbered) -> Renumbered:
        """Returns the same texts with the new numbers."""
        return texts.renumbered(self.numbers)


@contextmanager
def only_used_words(student: PreTrainedModel, vocabulary: Vocabulary) -> Iterator[None]:
    """Replaces a student's embedding by that of the words in use, and writes it back after the block.

    Args:
        student: changed until the end of the block.
        vocabulary: the student reads its numbers within the block.
    """
    whole = student.get_input_embeddings()
    assert isinstance(whole, nn.Embedding)
    rows = torch.from_numpy(vocabulary.rows)
    used = nn.Embedding.from_pretrained(
        whole.weight.detach()[rows], freeze=False, padding_idx=whole.padding_idx
    )
    student.set_input_embeddings(used)
    try:
        yield
    finally:
        student.set_input_embeddings(whole)
        with torch.no_grad():
            whole.weight[rows] = used.weight
