"""Teacher outputs on a set of texts, and batches of them.

Padding is not stored: the tokens of all texts are concatenated, and `offsets` holds the start of each text.
A loss over tokens cannot include padding, and a batch is a few slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from kdnas_core.data.tokens import NOT_HIDDEN, Passage, hide_words
from kdnas_core.hardware import compute_device, free_gpu_bytes
from kdnas_core.models.pooling import Mode
from kdnas_core.models.teacher import Teacher

Kind = Literal["hidden", "query", "key", "value"]
Output = tuple[Kind, int]  # of which teacher layer, counted from 1; ("hidden", 0) is the embedding's


Reader = Callable[[Kind, int], torch.Tensor]  # (real tokens, H) float32 output of a teacher layer

SHARE_OF_GPU = 0.1  # of its free memory, for stored outputs; each of several processes has its own
AT_ONCE = 10_000  # texts: a tokenizer's lists take several times the memory of an array


@dataclass(frozen=True)
class Texts:
    """Tokenized texts with the teacher's outputs: stored (`Targets`) or computed when read.

    Attributes:
        ids: (tokens,) token ids of all texts, concatenated, as the student reads them.
        labels: (tokens,) the original word of each masked token, NOT_HIDDEN elsewhere.
        offsets: (texts + 1,) the start of each text in `ids`.
        variance: (N + 1,) variance of the output of layers 0..N about its mean over tokens, averaged over
            H: the squared error of a student that predicts the mean.
        types: (tokens,) the segment of each token; None where no text is a pair.
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
        """Returns a reader of the teacher's outputs on these slices of the tokens."""
        raise NotImplementedError

    def renumbered(self, numbers: NDArray[np.int64]) -> Self:
        """Returns the same texts with the student's ids replaced by their new numbers, (V,)."""
        hidden = self.labels != NOT_HIDDEN
        labels = self.labels.copy()
        labels[hidden] = numbers[labels[hidden]]
        return replace(self, ids=numbers[self.ids], labels=labels)

    def in_pass(self, number: int) -> Self:
        """Returns the texts of a pass, counted from 0; always the same where outputs are stored."""
        return self


@dataclass(frozen=True)
class Targets(Texts):
    """Texts with stored teacher outputs.

    Attributes:
        outputs: by kind and layer, (tokens, H) float16 each, memory-mapped.
    """

    outputs: dict[Output, NDArray[np.float16]]

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        return self.outputs["hidden", 0].shape[1]

    def reader(self, slices: Sequence[slice]) -> Reader:
        """Returns a reader of the outputs on these slices."""
        on_gpu = self._on_gpu if compute_device().type != "cpu" else {}
        tokens = np.concatenate([np.arange(part.start, part.stop) for part in slices]) if on_gpu else None
        places = None if tokens is None else torch.from_numpy(tokens).to(compute_device())

        def read(kind: Kind, layer: int) -> torch.Tensor:
            if places is not None:
                return on_gpu[kind, layer].index_select(0, places).float()
            output = self.outputs[kind, layer]
            stored = torch.from_numpy(np.concatenate([output[part] for part in slices]))
            return stored.to(compute_device()).float()

        return read

    @cached_property
    def _on_gpu(self) -> dict[Output, torch.Tensor]:
        """The outputs on the GPU that models compute on, if it has room for them; else none."""
        if sum(output.nbytes for output in self.outputs.values()) > SHARE_OF_GPU * free_gpu_bytes():
            return {}
        device = compute_device()
        try:
            return {name: torch.tensor(output, device=device) for name, output in self.outputs.items()}
        except torch.OutOfMemoryError:  # other processes have taken it by now
            return {}

    def states_sample(self, count: int) -> NDArray[np.float16]:
        """Returns the hidden states of layers 1..N at the first `count` tokens, (tokens, N, H)."""
        layers = range(1, len(self.variance))
        return np.stack([self.outputs["hidden", layer][:count] for layer in layers], axis=1)


@dataclass(frozen=True)
class Batch:
    """A batch of texts, padded at the end, with the teacher's outputs for their real tokens.

    Attributes:
        ids: (B, n) token ids.
        mask: (B, n) 1 for real tokens.
        labels: (real tokens,) the original word of each masked token, NOT_HIDDEN elsewhere.
        variance: (N + 1,) of the teacher's layers, as in `Texts`.
        teacher: returns a teacher layer's (real tokens, H) float32 output, in the order of `mask`'s ones.
        types: (B, n) the segment of each token; None where no text is a pair.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    variance: NDArray[np.float64]
    teacher: Callable[[Kind, int], torch.Tensor]
    types: torch.Tensor | None = None

    @cached_property
    def places(self) -> torch.Tensor:
        """(real tokens,) their indices among all B * n; a GPU is waited for only once."""
        return real_places(self.mask)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """(B,) real tokens of each text."""
        return self.mask.sum(1)

    def teacher_padded(self, kind: Kind, layer: int) -> torch.Tensor:
        """Returns the same as (B, n, H), with zeros for padding."""
        tokens = self.teacher(kind, layer)
        padded = torch.zeros(self.mask.numel(), tokens.shape[1], device=tokens.device)
        return padded.index_copy_(0, self.places, tokens).unflatten(0, self.mask.shape)

    def real(self, states: torch.Tensor) -> torch.Tensor:
        """Selects the real tokens: (B, n, H) -> (real tokens, H) float32."""
        return real_states(states, self.places).float()


def real_places(mask: torch.Tensor) -> torch.Tensor:
    """Returns the indices of the ones of a mask (B, n) among its B * n entries, (real tokens,)."""
    return mask.flatten().nonzero().squeeze(1)


def real_states(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Selects the real tokens, at the indices `places`: (B, n, H) -> (real tokens, H)."""
    return states.flatten(0, 1).index_select(0, places)


def make_batch(texts: Texts, chosen: Sequence[int], pad: int) -> Batch:
    """Returns the batch of the texts with these indices, padded with the token id `pad`."""
    slices = [slice(texts.offsets[text], texts.offsets[text + 1]) for text in chosen]
    ids, mask = padded([texts.ids[part] for part in slices], pad)
    types = None if texts.types is None else padded([texts.types[part] for part in slices], 0)[0]
    labels = torch.from_numpy(np.concatenate([texts.labels[part] for part in slices]))
    labels = labels.to(compute_device())
    return Batch(ids, mask, labels, texts.variance, texts.reader(slices), types)


def padded(rows: Sequence[NDArray[np.int64]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns rows as one tensor (B, n), padded at the end, and its mask, 1 for real entries.

    Both are on the device that models compute on.
    """
    longest = max(len(row) for row in rows)
    filled = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = torch.from_numpy(row)
        mask[place, : len(row)] = 1
    return filled.to(compute_device()), mask.to(compute_device())


def pooled(tokens: torch.Tensor, lengths: torch.Tensor, mode: Mode) -> torch.Tensor:
    """Pools the states of each text's tokens into one vector.

    Args:
        tokens: (real tokens, H), texts concatenated.
        lengths: (B,) tokens of each text, all above 0.
        mode: the mean over a text's tokens, its first token's state, or the maximum.

    Returns:
        (B, H).
    """
    if mode == "cls":
        return tokens[lengths.cumsum(0) - lengths]
    # unsafe: without a check of the lengths, which waits for a GPU
    return torch.segment_reduce(tokens, mode, lengths=lengths, axis=0, unsafe=True)


@dataclass(frozen=True)
class TokenizedTexts:
    """The concatenated tokens of texts.

    Attributes:
        ids: (tokens,) token ids.
        labels: (tokens,) the original word of each masked token, NOT_HIDDEN elsewhere.
        offsets: (texts + 1,) the start of each text.
        types: (tokens,) the segment of each token; None where no text is a pair, or the teacher has no
            segments.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    types: NDArray[np.int64] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens, the labels and the segments."""
        digest = hashlib.sha256()
        for array in (self.ids, self.labels, self.offsets, self.types):
            if array is not None:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def slice(self, index: int) -> slice:
        """Returns the slice of a text's tokens."""
        return slice(self.offsets[index], self.offsets[index + 1])


def tokenised(
    teacher: Teacher, texts: Sequence[Passage], sequence_length: int, hidden_words: bool = False
) -> TokenizedTexts:
    """Tokenizes texts or pairs.

    Args:
        teacher: has the tokenizer.
        texts: each is cut at `sequence_length` tokens, special tokens included; of a pair the longer is cut.
        sequence_length: in tokens.
        hidden_words: whether to mask words.

    Raises:
        BadInput: the tokenizer has no mask token.
    """
    parts = [
        _encoded(teacher, texts[start : start + AT_ONCE], sequence_length)
        for start in range(0, len(texts), AT_ONCE)
    ]
    ids, types, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # without segments a model takes all of them to be 0
    segments = types if types.any() and has_segments(teacher.model.config) else None
    if hidden_words:
        return TokenizedTexts(*hide_words(ids, teacher.tokenizer), offsets, segments)
    return TokenizedTexts(ids, np.full_like(ids, NOT_HIDDEN), offsets, segments)


def _encoded(
    teacher: Teacher, texts: Sequence[Passage], sequence_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids and types of all tokens, and the length of each text."""
    encoded = teacher.tokenizer(list(texts), truncation=True, max_length=sequence_length)
    lists = encoded["input_ids"]
    ids = np.concatenate(lists).astype(np.int64)
    segments = encoded.get("token_type_ids")
    types = np.zeros_like(ids) if segments is None else np.concatenate(segments).astype(np.int64)
    return ids, types, np.array([len(tokens) for tokens in lists], dtype=np.int64)


def has_segments(config: PreTrainedConfig) -> bool:
    """Returns whether a model with this config has segment embeddings.

    Its tokenizer may give segments all the same, as a RoBERTa with BERT's tokenizer.
    """
    return getattr(config, "type_vocab_size", 1) > 1
