"""Linear CKA (Kornblith et al., 1905.00414, section 3), by the unbiased estimate of HSIC.

The estimate is that of Song et al. (JMLR 13, 2012; Nguyen et al., 2010.15327, eq. 3): the biased one
increases with width alone. CKA is invariant to rotation, translation and scaling, so no projection is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Gram = NDArray[np.float32]  # of examples, centred


def gram_of(vectors: torch.Tensor) -> Gram:
    """Returns the Gram matrix of vectors (examples, H)."""
    # centred first: equal in exact arithmetic, and float32 is then precise enough
    centred = vectors.double() - vectors.double().mean(0)
    return (centred @ centred.T).float().numpy()


@dataclass(frozen=True)
class Vectors:
    """The Gram matrix of vectors with a zero diagonal, and its HSIC with itself."""

    gram: Gram
    own: float

    @classmethod
    def of(cls, gram: Gram) -> Vectors:
        """Vectors with this Gram matrix."""
        return cls(gram, hsic(gram, gram))


def cka(first: Vectors, second: Vectors) -> float:
    """Returns the CKA of two sets of vectors.

    It is 1 for equal vectors, about 0 for unrelated ones, by chance a little below, and 0 if one is constant.
    """
    own = first.own * second.own
    return hsic(first.gram, second.gram) / math.sqrt(own) if own > 0 else 0.0


def hsic(first: Gram, second: Gram) -> float:
    """The unbiased estimate of HSIC for Gram matrices with a zero diagonal, times n (n - 3)."""
    n = len(first)
    sums = [gram.sum(0, dtype=np.float64) for gram in (first, second)]
    trace = np.einsum("ij,ij->", first, second, dtype=np.float64)
    whole = sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
    return float(trace + whole - 2 * (sums[0] @ sums[1]) / (n - 2))
