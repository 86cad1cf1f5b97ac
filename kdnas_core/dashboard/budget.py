"""The scale of the budget slider: ends that do not move while a run grows, and the run's own budget on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdnas_core.dashboard import progress
from kdnas_core.runs.rows import Run

_FINEST_MS = 0.01  # as it is shown


@dataclass(frozen=True)
class Scale:
    """A slider in milliseconds, and the budget that its start stands for."""

    low: float
    high: float
    step: float
    start: float
    own: float

    def budget(self, position: float) -> float:
        """The budget at a position; at the start it is the run's own, which is seldom a whole step."""
        return self.own if math.isclose(position, self.start) else position


def scale(run: Run) -> Scale | None:
    """Up to the teacher's latency, in whole steps from the run's own budget, so that it is a position too.

    None until the run's budget is known in milliseconds.
    """
    own = progress.budget_of(run)
    if own is None:
        return None
    high = max(own, progress.teacher_ms(run) or 2 * own)
    step = max(_FINEST_MS, 10.0 ** math.floor(math.log10(high / 100)) / 2)
    start = max(_FINEST_MS, math.floor(own / _FINEST_MS) * _FINEST_MS)
    below = max(0, math.ceil(start / step) - 1)
    above = max(0, math.ceil((high - start) / step))
    return Scale(round(start - below * step, 2), round(start + above * step, 2), step, round(start, 2), own)
