"""Candidates that were judged to the end, with their figures in columns: a run may have thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import overload

import numpy as np
from numpy.typing import NDArray

from kdnas_core.runs.records import Candidate

Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured(Sequence[Candidate]):
    """Candidates with a finite latency and error, as a sequence, and their figures.

    Attributes:
        rows: the candidates.
        p50: their latencies, in ms.
        p95: the same.
        speedups: over the teacher.
        errors: see `Candidate.point`.
        noise: the standard errors of their losses; 0 where not known.
    """

    rows: Sequence[Candidate]
    p50: Column
    p95: Column
    speedups: Column
    errors: Column
    noise: Column

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Measured:
        """Returns those of some candidates that were judged to the end, in the same order."""
        rows = [row for row in candidates if row.state == "done"]
        figures = np.array([row.figures for row in rows], dtype=np.float64).reshape(-1, 5)
        found = cls(rows, *np.ascontiguousarray(figures.T))
        finite = np.isfinite(found.p50) & np.isfinite(found.errors)
        return found if finite.all() else found.where(finite)

    def where(self, is_kept: NDArray[np.bool_]) -> Measured:
        """Returns those for which a mask is true."""
        columns = (self.p50, self.p95, self.speedups, self.errors, self.noise)
        return Measured(list(compress(self.rows, is_kept)), *(values[is_kept] for values in columns))

    @property
    def points(self) -> Column:
        """Latency and error of each, (rows, 2)."""
        return np.stack([self.p50, self.errors], axis=1)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Candidate]: ...

    def __getitem__(self, place: int | slice) -> Candidate | Sequence[Candidate]:
        """Returns candidates by their places."""
        return self.rows[place]

    def __len__(self) -> int:
        """Returns how many they are."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Candidate]:
        """Yields the candidates in order."""
        return iter(self.rows)
