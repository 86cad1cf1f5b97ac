"""Standard errors from the values that a statistic has on bootstrap samples (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DTYPE = np.dtype("<f4")  # as kept: a run may have 20,000 candidates


def standard_error(resampled: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Computes the standard error of what was resampled; None if it was not."""
    return float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None


def packed(resampled: Sequence[float]) -> bytes:
    """Returns what was resampled in few bytes, to keep."""
    return np.array(resampled, _DTYPE).tobytes()


def standard_error_of_difference(first: bytes, second: bytes) -> float | None:
    """Computes that of the difference of two statistics on the same samples, both packed.

    It is smaller than if each had samples of its own: what is hard for one student is hard for others.

    Returns:
        None if one was not resampled, or they have other numbers of samples.
    """
    if len(first) != len(second):
        return None
    values, others = (np.frombuffer(kept, _DTYPE).astype(np.float64) for kept in (first, second))
    return standard_error(values - others)
