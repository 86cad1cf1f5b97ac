"""Texts as token ids in a row, as teacher and student read them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from kdnas_core.distillation.masking import NOT_HIDDEN, hide_words
from kdnas_core.distillation.pairs import Passage
from kdnas_core.distillation.teacher import Teacher

AT_ONCE = 10_000  # texts: a tokenizer's lists of numbers take several times the memory of an array


@dataclass(frozen=True)
class Sheet:
    """Tokens of all texts in a row.

    Attributes:
        ids: (tokens,) token ids.
        labels: (tokens,) the word that was hidden there for masked-LM, NOT_HIDDEN where none was.
        offsets: (texts + 1,) where each text begins.
        types: (tokens,) which sentence of a pair a token is of; None where no text is a pair, or the teacher
            cannot be told.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    types: NDArray[np.int64] | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the texts, the tokenizer, and which words are hidden."""
        digest = hashlib.sha256()
        for array in (self.ids, self.labels, self.offsets, self.types):
            if array is not None:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def slice(self, index: int) -> slice:
        """Where the text with this index is."""
        return slice(self.offsets[index], self.offsets[index + 1])


def tokenised(
    teacher: Teacher, texts: Sequence[Passage], sequence_length: int, hidden_words: bool = False
) -> Sheet:
    """The tokens of some texts, or of some pairs.

    Args:
        teacher: whose tokenizer.
        texts: cut at `sequence_length` tokens each, special tokens included; of a pair the longer is cut.
        sequence_length: in tokens.
        hidden_words: whether words are hidden for masked-LM.

    Raises:
        BadInput: the tokenizer cannot hide words.
    """
    parts = [
        _encoded(teacher, texts[start : start + AT_ONCE], sequence_length)
        for start in range(0, len(texts), AT_ONCE)
    ]
    ids, types, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # all 0 is what a model takes them to be if it is told nothing
    told = types if types.any() and knows_pairs(teacher.model.config) else None
    if hidden_words:
        return Sheet(*hide_words(ids, teacher.tokenizer), offsets, told)
    return Sheet(ids, np.full_like(ids, NOT_HIDDEN), offsets, told)


def _encoded(
    teacher: Teacher, texts: Sequence[Passage], sequence_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids and types of all tokens, and the length of each text."""
    encoded = teacher.tokenizer(list(texts), truncation=True, max_length=sequence_length)
    lists = encoded["input_ids"]
    ids = np.concatenate(lists).astype(np.int64)
    given = encoded.get("token_type_ids")
    types = np.zeros_like(ids) if given is None else np.concatenate(given).astype(np.int64)
    return ids, types, np.array([len(tokens) for tokens in lists], dtype=np.int64)


def knows_pairs(config: PreTrainedConfig) -> bool:
    """Whether a model with this config is told which sentence of a pair a token is of.

    Its tokenizer may say so all the same: a RoBERTa with BERT's tokenizer would look up what it has not.
    """
    return getattr(config, "type_vocab_size", 1) > 1
