"""Standard errors from the values that a statistic has on bootstrap samples (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def standard_error(resampled: Sequence[float]) -> float | None:
    """Computes the standard error of what was resampled; None if it was not."""
    return float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None


def standard_error_of_difference(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Computes that of the difference of two statistics on the same samples; None if it is not known.

    It is smaller than if each had samples of its own: what is hard for one student is hard for others.
    """
    return standard_error(np.subtract(first, second).tolist()) if len(first) == len(second) else None
