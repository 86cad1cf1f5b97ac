"""The yardstick: one held-out error that compares students of any depth and width.

`benchmarks.yardstick` measures how well each yardstick ranks students by their final scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kdnas_core.distillation.cka import Vectors, cka, gram_of
from kdnas_core.distillation.terms import Pass, StateTerm
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import Batch, pooled

FEWEST_TEXTS = 4  # the unbiased estimate of HSIC needs them
SAMPLES = 100  # of the bootstrap

Indices = NDArray[np.int64]
OfTexts = Callable[[Indices], float]  # the error on some of the texts, repeated or not


@dataclass(frozen=True)
class Error:
    """An error: 0 for a student equal to its teacher, 1 for one unrelated to it.

    Attributes:
        value: on all texts; NaN if there are too few.
        resampled: on the samples of a bootstrap over texts; empty if not computed.
    """

    value: float
    resampled: tuple[float, ...] = ()


class Meter(Protocol):
    """Reads held-out batches, then returns the error on their texts."""

    def read(self, outputs: Pass, batch: Batch) -> None:
        """Adds a batch and the student's pass on it."""

    def error(self) -> tuple[OfTexts, int]:
        """Returns the error as a function of text indices, and the number of texts."""


class VectorsMeter:
    """One minus the CKA of sentence vectors.

    Args:
        pooling: of the sentence vectors.
        teacher_layers: N.
    """

    def __init__(self, pooling: Mode, teacher_layers: int) -> None:
        self.pooling, self.last = pooling, teacher_layers
        self.student: list[torch.Tensor] = []
        self.teacher: list[torch.Tensor] = []

    def read(self, outputs: Pass, batch: Batch) -> None:
        """Adds a batch."""
        lengths = batch.lengths
        self.student.append(pooled(batch.real(outputs.hidden[-1]), lengths, self.pooling).cpu())
        self.teacher.append(pooled(batch.teacher("hidden", self.last), lengths, self.pooling).cpu())

    def error(self) -> tuple[OfTexts, int]:
        """Returns one minus the CKA as a function of text indices, and the number of texts."""
        student, teacher = torch.cat(self.student), torch.cat(self.teacher)
        return vectors_error(student, teacher), len(student)


class LastLayerMeter:
    """The error of the last hidden states, in units of the teacher's variance.

    Args:
        term: the term on the student's last hidden states, with its projection.
    """

    def __init__(self, term: StateTerm) -> None:
        self.term = term
        self.squares: list[torch.Tensor] = []
        self.tokens: list[torch.Tensor] = []

    def read(self, outputs: Pass, batch: Batch) -> None:
        """Adds a batch."""
        self.squares.append(self.term.last_errors(outputs, batch).cpu())
        self.tokens.append(batch.lengths.cpu())

    def error(self) -> tuple[OfTexts, int]:
        """Returns the mean over tokens as a function of text indices, and the number of texts."""
        squares, tokens = (torch.cat(parts).double().numpy() for parts in (self.squares, self.tokens))
        return lambda texts: float(squares[texts].sum() / tokens[texts].sum()), len(tokens)


def measured(meter: Meter, with_resampled: bool) -> Error:
    """Computes the error on all texts that a meter has read."""
    error, count = meter.error()
    if count < FEWEST_TEXTS:
        return Error(math.nan)
    return Error(error(np.arange(count)), bootstrap(error, count) if with_resampled else ())


def bootstrap(error: OfTexts, count: int) -> tuple[float, ...]:
    """Computes an error on samples of `count` texts drawn with replacement (Efron, 1979).

    Of as many texts the samples are always the same, so the errors of two students may be subtracted.
    """
    rng = np.random.default_rng(0)
    return tuple(error(rng.integers(count, size=count)) for _ in range(SAMPLES))


def vectors_error(student: torch.Tensor, teacher: torch.Tensor) -> OfTexts:
    """Returns one minus the linear CKA of two sets of vectors.

    Args:
        student: (texts, H_S).
        teacher: (texts, H_T), of the same texts.
    """
    grams = [gram_of(vectors) for vectors in (student, teacher)]

    def error(texts: Indices) -> float:
        # excludes pairs of a text with itself, which resampling creates
        apart = texts[:, None] != texts[None, :]
        first, second = (Vectors.of(gram[np.ix_(texts, texts)] * apart) for gram in grams)
        return 1 - cka(first, second)

    return error
