"""The loss terms: one function each, on real tokens only, a value for each layer."""

from __future__ import annotations

import torch


def normalised_mse(prediction: torch.Tensor, target: torch.Tensor, variance: float) -> torch.Tensor:
    """Mean squared error in units of the target's variance: 1 for a student that predicts the mean.

    Args:
        prediction: (tokens, H), real tokens only.
        target: (tokens, H), the teacher's.
        variance: of this teacher layer's output, averaged over H.

    Returns:
        A scalar.
    """
    return (prediction - target).square().mean() / variance
