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
    [error] = standard_errors_of_differences(first, [second]).tolist()
    return None if np.isnan(error) else error


def standard_errors_of_differences(first: bytes, others: Sequence[bytes]) -> NDArray[np.float64]:
    """As `standard_error_of_difference`, of one statistic and several others; NaN instead of None."""
    found = np.full(len(others), np.nan)
    places = [place for place, kept in enumerate(others) if len(kept) == len(first)]
    values = np.frombuffer(first, _DTYPE).astype(np.float64)
    if len(values) > 1 and places:
        kept = np.frombuffer(b"".join(others[place] for place in places), _DTYPE).astype(np.float64)
        found[places] = np.std(values - kept.reshape(len(places), -1), axis=1, ddof=1)
    return found
