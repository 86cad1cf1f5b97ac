"""Teacher outputs on a set of texts, and the batches that a student sees of them.

Padding is never stored: the tokens of all texts stand one after another, and `offsets` says where each
text begins. So no loss of tokens can touch padding, and a batch is a handful of slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Kind = Literal["hidden", "query", "key", "value"]
Output = tuple[Kind, int]  # of which teacher layer, counted from 1; ("hidden", 0) is the embedding's


@dataclass(frozen=True)
class Targets:
    """A set of texts as the teacher sees them.

    Attributes:
        ids: (tokens,) token ids of all texts in a row, as teacher and student read them.
        labels: (tokens,) the word that was hidden there for masked-LM, NOT_HIDDEN where none was.
        offsets: (texts + 1,) where each text begins in `ids`.
        outputs: (tokens, H) float16 each, memory-mapped: what the teacher computed, by kind and layer.
        variance: (N + 1,) variance of the output of layers 0..N about its mean over tokens, averaged over
            H: the squared error of a student that predicts the mean.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    outputs: dict[Output, NDArray[np.float16]]
    variance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        return self.outputs["hidden", 0].shape[1]

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
        targets: of the whole set.
        slices: where each of the texts is in it.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    targets: Targets
    slices: Sequence[slice]

    def teacher(self, kind: Kind, layer: int) -> torch.Tensor:
        """(real tokens, H) float32 output of a teacher layer, in the order of `mask`'s ones."""
        output = self.targets.outputs[kind, layer]
        return torch.from_numpy(np.concatenate([output[part] for part in self.slices])).float()

    def teacher_padded(self, kind: Kind, layer: int) -> torch.Tensor:
        """(B, n, H) the same, with zeros for padding."""
        tokens = self.teacher(kind, layer)
        padded = torch.zeros(*self.mask.shape, tokens.shape[1])
        padded[self.mask.bool()] = tokens
        return padded

    def real(self, states: torch.Tensor) -> torch.Tensor:
        """(B, n, H) -> (real tokens, H) float32."""
        return states[self.mask.bool()].float()


def make_batch(targets: Targets, texts: Sequence[int], pad: int) -> Batch:
    """The batch of the texts with these indices, padded with the token id `pad`."""
    slices = [slice(targets.offsets[text], targets.offsets[text + 1]) for text in texts]
    longest = max(part.stop - part.start for part in slices)
    ids = torch.full((len(slices), longest), pad)
    mask = torch.zeros(len(slices), longest, dtype=torch.long)
    for row, part in enumerate(slices):
        ids[row, : part.stop - part.start] = torch.from_numpy(targets.ids[part])
        mask[row, : part.stop - part.start] = 1
    labels = torch.from_numpy(np.concatenate([targets.labels[part] for part in slices]))
    return Batch(ids, mask, labels, targets, slices)
