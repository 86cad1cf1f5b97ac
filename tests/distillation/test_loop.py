from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from kdnas_core.distillation import loop
from kdnas_core.distillation.loop import Diverged, Group, Loop, Saved, all_alike, share_of_rate
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence

STEPS, RATE = 20, 0.05
Arrays = list[NDArray[np.float64]]


def quarter_of_layer_2(layer: int) -> float:
    return 0.25 if layer == 2 else 1.0


def made_up_gradients(seed: int) -> list[Arrays]:
    """Gradients of two parameters at each step, with lengths from 1/100 to 100 times the clipping."""
    rng = np.random.default_rng(seed)
    lengths = 10 ** rng.uniform(-2, 2, STEPS)
    return [[length * rng.normal(size=3), length * rng.normal(size=(2, 2))] for length in lengths]


def reference(start: Arrays, gradients: list[Arrays], shares: list[float]) -> Arrays:
    """AdamW (arXiv 1711.05101, algorithm 2), the clipping and the schedule; only matrices decay."""
    weights = [weight.copy() for weight in start]
    first, second = ([np.zeros_like(weight) for weight in start] for _ in range(2))
    warm_up = max(1, round(0.1 * STEPS))
    for step, given in enumerate(gradients, start=1):
        schedule = step / warm_up if step <= warm_up else (STEPS - step + 1) / (STEPS - warm_up)
        length = math.sqrt(sum(float((gradient**2).sum()) for gradient in given))
        for index, share in enumerate(shares):
            gradient = given[index] * min(1.0, 1.0 / (length + 1e-6))
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            corrected = (first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step))
            rate = RATE * share * min(1.0, schedule)
            decay = 0.01 * weights[index] if weights[index].ndim > 1 else 0.0
            weights[index] -= rate * (decay + corrected[0] / (corrected[1] ** 0.5 + 1e-8))
    return weights


def giving(parameters: list[nn.Parameter], gradients: Arrays) -> Callable[[], float]:
    def give() -> float:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        return 1.0

    return give


@pytest.mark.parametrize(("rates", "shares"), [(all_alike, [1.0, 1.0]), (quarter_of_layer_2, [0.25, 1.0])])
def test_the_steps_are_those_of_adamw_with_clipping_warm_up_and_decay(
    rates: loop.LayerRates, shares: list[float]
) -> None:
    start = [np.array([1.0, -2.0, 3.0]), np.array([[0.5, 0.1], [-4.0, 2.0]])]
    parameters = [nn.Parameter(torch.from_numpy(weight.copy())) for weight in start]
    training = Loop([Group(parameters[:1], 2), Group(parameters[1:])], STEPS, RATE)
    gradients = made_up_gradients(0)
    for step, given in enumerate(gradients, start=1):
        training.take(step, giving(parameters, given), rates)
    for parameter, expected in zip(parameters, reference(start, gradients, shares), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1.0]),
        (2, [1.0, 1.0]),
        (4, [1.0, 1.0, 2 / 3, 1 / 3]),
        (20, [0.5, 1.0, *(left / 18 for left in range(18, 0, -1))]),
    ],
)
def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_towards_0(
    steps: int, expected: list[float]
) -> None:
    assert [share_of_rate(step, steps) for step in range(steps)] == pytest.approx(expected)


def test_gradients_do_not_add_up_over_steps() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    training, seen = Loop([Group([parameter])], 3, RATE), []

    def gradients() -> float:
        seen.append(parameter.grad)
        parameter.sum().backward()
        return 1.0

    for step in (1, 2, 3):
        training.take(step, gradients)
    assert seen == [None] * 3


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_ends_the_training_before_it_is_learnt(loss: float) -> None:
    parameter = nn.Parameter(torch.ones(2))
    training = Loop([Group([parameter])], 5, RATE)

    def gradients() -> float:
        parameter.grad = torch.ones(2)
        return loss

    with pytest.raises(Diverged, match=r"at step 3; a lower learning rate may help"):
        training.take(3, gradients)
    assert parameter.tolist() == [1.0, 1.0]


# What is kept


class Fit:
    """A line that is fitted to made-up points, one batch a step."""

    def __init__(self, path: Path | None, training: str = "a line", steps: int = STEPS) -> None:
        torch.manual_seed(0)
        self.line, self.bend = nn.Linear(3, 2), nn.Linear(2, 1)
        modules: dict[str, nn.Module] = {"line": self.line, "bend": self.bend}
        groups = [Group(list(module.parameters())) for module in modules.values()]
        self.loop = Loop(groups, steps, RATE, Saved(path, training, modules) if path else None)

    def run(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.loop.take(step, lambda step=step: self.gradients(step))  # type: ignore[misc]
            self.loop.keep(step)

    def gradients(self, step: int) -> float:
        points = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (self.bend(self.line(points).tanh())[:, 0] - points.sum(1)).square().mean()
        loss.backward()
        return loss.item()

    def weights(self) -> list[float]:
        return [
            value
            for module in (self.line, self.bend)
            for weight in module.parameters()
            for value in weight.flatten().tolist()
        ]


@pytest.mark.parametrize(("ended", "kept"), [(3, 0), (5, 5), (13, 10)])
def test_a_training_that_was_ended_goes_on_to_the_same_weights(
    ended: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 5)
    whole = Fit(None)
    whole.run(1, STEPS)
    Fit(tmp_path / "saved").run(1, ended)
    again = Fit(tmp_path / "saved")
    assert again.loop.steps_saved() == kept
    again.run(kept + 1, STEPS)
    assert again.weights() == whole.weights()
    assert Fit(tmp_path / "saved").loop.steps_saved() == STEPS  # the last step is kept, whatever its number


def test_a_checkpoint_numbers_parameters_as_they_were_given(tmp_path: Path) -> None:
    sizes = [(3,), (2, 3), (4,), (5, 3)]  # matrices and others are of two groups of the optimiser
    given = [nn.Parameter(torch.ones(size)) for size in sizes]
    saved = loop.Saved(tmp_path / "saved", "", {})
    made = loop.Loop([loop.Group(given[:3], 1), loop.Group(given[3:], decays=False)], 1, 0.1, saved)
    assert [group["weight_decay"] for group in made.optimiser.param_groups] == [0.01, 0.0, 0.0]

    def gradients() -> float:
        sum(each.sum() * (number + 1) for number, each in enumerate(given)).backward()  # type: ignore[union-attr]
        return 1.0

    made.take(1, gradients)
    made.keep(1)
    kept = load_file(tmp_path / "saved")
    assert [tuple(kept[f"optimiser/{number}/exp_avg"].shape) for number in range(4)] == sizes
    again = loop.Loop([loop.Group(given[:3], 1), loop.Group(given[3:], decays=False)], 1, 0.1, saved)
    assert again.steps_saved() == 1
    for each in given:
        assert torch.equal(again.optimiser.state[each]["exp_avg"], made.optimiser.state[each]["exp_avg"])


def test_a_step_can_be_kept_at_once(tmp_path: Path) -> None:
    fit = Fit(tmp_path / "saved")
    fit.run(1, 3)
    assert not (tmp_path / "saved").exists()
    fit.loop.keep(3, now=True)
    again = Fit(tmp_path / "saved")
    assert again.loop.steps_saved() == 3
    assert again.weights() == fit.weights()


def test_where_steps_are_slow_one_is_kept_each_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, kept = 1_000.0, []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(loop, "save_checkpoint", lambda *given: kept.append(given[3]))
    fit = Fit(tmp_path / "saved", steps=500)
    for step in range(1, 13):
        now += 25.0
        fit.loop.keep(step)
    assert loop.CHECKPOINT_S == 60
    assert kept == [3, 6, 9, 12]


def test_nothing_is_written_where_nothing_is_to_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError("a checkpoint was written")

    monkeypatch.setattr(loop, "save_checkpoint", never)
    fit = Fit(None)
    fit.loop.keep(STEPS, now=True)
    assert fit.loop.steps_saved() == 0


def test_a_file_of_another_training_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    fit = Fit(tmp_path / "saved")
    fit.run(1, 2)
    fit.loop.keep(2, now=True)
    other = Fit(tmp_path / "saved", "another line")
    before = other.weights()
    with pytest.raises(BadInput, match="other settings") as refused:
        other.loop.steps_saved()
    assert is_one_sentence(str(refused.value))
    assert other.weights() == before


def test_unused_memory_is_returned_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[int] = []
    clock, parameter = [0.0], nn.Parameter(torch.ones(2))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    of_one = Loop([Group([parameter])], STEPS, RATE)
    for step in range(1, STEPS + 1):
        monkeypatch.setattr(loop, "return_memory", partial(returned.append, step))
        clock[0] += loop.RETURN_S / 2.5
        of_one.take(step, giving([parameter], [np.ones(2, np.float32)]))
    assert returned == [3, 6, 9, 12, 15, 18]
