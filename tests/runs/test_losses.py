from __future__ import annotations

import pytest

from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.records import LayerLoss


def test_the_loss_over_steps_is_that_of_the_reward() -> None:
    losses = [
        LayerLoss(10, 1, 1, 0.2),
        LayerLoss(0, 1, 1, 1.0),
        LayerLoss(0, 1, 2, 0.5),
        LayerLoss(0, 2, 2, 0.25),
        LayerLoss(0, 1, 1, 9.0, "attention"),
    ]
    found = losses_by_step(losses)
    assert found == pytest.approx({0: (0.75 + 0.25) / 2, 10: 0.2})
    assert list(found) == [0, 10]
    probed = [*losses, LayerLoss(0, 1, 1, 0.4, "hidden_probe")]
    assert losses_by_step(probed) == {0: 0.4}
    assert losses_by_step([*probed, LayerLoss(0, 0, 0, 0.3, "yardstick")]) == {0: 0.3}
    assert losses_by_step([]) == losses_by_step([LayerLoss(3, 2, 2, 0.1, "prediction")]) == {}
