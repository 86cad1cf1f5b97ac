"""Teacher outputs on a set of texts, and the batches that a student sees of them.

Padding is never stored: the tokens of all texts stand one after another, and `offsets` says where each
text begins. So no loss of tokens can touch padding, and a batch is a handful of slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from kdnas_core.data.tokens import NOT_HIDDEN, Passage, hide_words
from kdnas_core.models.pooling import Mode
from kdnas_core.models.teacher import Teacher

Kind = Literal["hidden", "query", "key", "value"]
Output = tuple[Kind, int]  # of which teacher layer, counted from 1; ("hidden", 0) is the embedding's


Reader = Callable[[Kind, int], torch.Tensor]  # (real tokens, H) float32 output of a teacher layer

AT_ONCE = 10_000  # texts: a tokenizer's lists of numbers take several times the memory of an array


@dataclass(frozen=True)
class Texts:
    """Texts as tokens in a row with what the teacher says to them: stored (`Targets`), or computed as read.

    Attributes:
        ids: (tokens,) token ids of all texts in a row, as the student reads them.
        labels: (tokens,) the word that was hidden there for masked-LM, NOT_HIDDEN where none was.
        offsets: (texts + 1,) where each text begins in `ids`.
        variance: (N + 1,) variance of the output of layers 0..N about its mean over tokens, averaged over
            H: the squared error of a student that predicts the mean.
        types: (tokens,) which sentence of a pair each token is of; None where no text is a pair.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    variance: NDArray[np.float64]
    types: NDArray[np.int64] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        raise NotImplementedError

    def reader(self, slices: Sequence[slice]) -> Reader:
        """Reads the teacher's outputs on the texts in these slices of the tokens."""
        raise NotImplementedError

    def renumbered(self, numbers: NDArray[np.int64]) -> Self:
        """The same texts with the new number of each id, (V,), for the student."""
        hidden = self.labels != NOT_HIDDEN
        labels = self.labels.copy()
        labels[hidden] = numbers[labels[hidden]]
        return replace(self, ids=numbers[self.ids], labels=labels)

    def in_pass(self, number: int) -> Self:
        """The texts as they are in this pass over them, counted from 0; the same where outputs are stored."""
        return self


@dataclass(frozen=True)
class Targets(Texts):
    """A set of texts with the teacher's outputs, stored.

    Attributes:
        outputs: (tokens, H) float16 each, memory-mapped: what the teacher computed, by kind and layer.
    """

    outputs: dict[Output, NDArray[np.float16]]

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        return self.outputs["hidden", 0].shape[1]

    def reader(self, slices: Sequence[slice]) -> Reader:
        """Reads the outputs on some texts."""

        def read(kind: Kind, layer: int) -> torch.Tensor:
            output = self.outputs[kind, layer]
            return torch.from_numpy(np.concatenate([output[part] for part in slices])).float()

        return read

    def states_sample(self, count: int) -> NDArray[np.float16]:
        """(tokens, N, H) hidden states of layers 1..N at the first `count` tokens."""
        layers = range(1, len(self.variance))
        return np.stack([self.outputs["hidden", layer][:count] for layer in layers], axis=1)


@dataclass(frozen=True)
class Batch:
    """Some texts, padded at the end, with the teacher's outputs for their real tokens.

    Attributes:
        ids: (B, n) token ids.
        mask: (B, n) 1 for real tokens.
        labels: (real tokens,) words hidden for masked-LM, NOT_HIDDEN at the others.
        variance: (N + 1,) of the teacher's layers, as in `Targets`.
        teacher: (real tokens, H) float32 output of a teacher layer, in the order of `mask`'s ones.
        types: (B, n) which sentence of a pair a token is of; None where no text is a pair.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    variance: NDArray[np.float64]
    teacher: Callable[[Kind, int], torch.Tensor]
    types: torch.Tensor | None = None

    def teacher_padded(self, kind: Kind, layer: int) -> torch.Tensor:
        """(B, n, H) the same, with zeros for padding."""
        tokens = self.teacher(kind, layer)
        padded = torch.zeros(*self.mask.shape, tokens.shape[1])
        padded[self.mask.bool()] = tokens
        return padded

    def real(self, states: torch.Tensor) -> torch.Tensor:
        """(B, n, H) -> (real tokens, H) float32."""
        return states[self.mask.bool()].float()


def make_batch(texts: Texts, chosen: Sequence[int], pad: int) -> Batch:
    """The batch of the texts with these indices, padded with the token id `pad`."""
    slices = [slice(texts.offsets[text], texts.offsets[text + 1]) for text in chosen]
    ids, mask = padded([texts.ids[part] for part in slices], pad)
    types = None if texts.types is None else padded([texts.types[part] for part in slices], 0)[0]
    labels = torch.from_numpy(np.concatenate([texts.labels[part] for part in slices]))
    return Batch(ids, mask, labels, texts.variance, texts.reader(slices), types)


def padded(rows: Sequence[NDArray[np.int64]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of numbers as one tensor (B, n), padded at the end, and its mask, 1 where they are real."""
    longest = max(len(row) for row in rows)
    filled = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = torch.from_numpy(row)
        mask[place, : len(row)] = 1
    return filled, mask


def pooled(tokens: torch.Tensor, lengths: torch.Tensor, mode: Mode) -> torch.Tensor:
    """The vector of each text, made of its tokens' states.

    Args:
        tokens: (real tokens, H), one text after another.
        lengths: (B,) tokens of each text, none of them 0.
        mode: the mean over a text's tokens, its first token's state, or the largest values.

    Returns:
        (B, H).
    """
    if mode == "cls":
        return tokens[lengths.cumsum(0) - lengths]
    return torch.segment_reduce(tokens, mode, lengths=lengths, axis=0)


@dataclass(frozen=True)
class TokenizedTexts:
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
) -> TokenizedTexts:
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
        return TokenizedTexts(*hide_words(ids, teacher.tokenizer), offsets, told)
    return TokenizedTexts(ids, np.full_like(ids, NOT_HIDDEN), offsets, told)


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
