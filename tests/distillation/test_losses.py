from __future__ import annotations

import pytest
import torch

from kdnas_core.distillation.losses import normalised_mse


def by_loops(prediction: torch.Tensor, target: torch.Tensor, variance: float) -> float:
    total, count = 0.0, 0
    for mine, theirs in zip(prediction.tolist(), target.tolist(), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            total += (one - other) ** 2
            count += 1
    return total / count / variance


@pytest.mark.parametrize("seed", range(8))
def test_the_loss_is_the_mean_squared_error_over_the_variance(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    tokens, width = (int(torch.randint(1, 12, (), generator=random)) for _ in range(2))
    prediction, target = (torch.randn(tokens, width, generator=random) for _ in range(2))
    loss = normalised_mse(prediction, target, variance=0.3 + seed)
    assert loss.item() == pytest.approx(by_loops(prediction, target, 0.3 + seed), rel=1e-5)


def test_predicting_the_mean_scores_one_however_large_the_target() -> None:
    for scale in (1e-3, 1.0, 1e3):
        target = 5 + scale * torch.randn(
            500, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        mean = target.mean(0).expand_as(target)
        variance = target.var(0, correction=0).mean().item()
        assert normalised_mse(mean, target, variance).item() == pytest.approx(1)


def test_predicting_the_target_scores_zero() -> None:
    target = torch.randn(5, 3)
    assert normalised_mse(target.clone(), target, 0.7).item() == 0
