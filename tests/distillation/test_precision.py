from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from kdnas_core.distillation import precision
from kdnas_core.distillation.precision import autocast_dtype

pytestmark = pytest.mark.usefixtures("fresh_cache")


class Gain:
    """Stands for the measurement; counts how often it is made."""

    def __init__(self, gain: float) -> None:
        self.gain = gain
        self.measured = 0

    def __call__(self) -> float:
        self.measured += 1
        return self.gain


def with_gain(monkeypatch: pytest.MonkeyPatch, gain: float) -> Gain:
    measure = Gain(gain)
    monkeypatch.setattr(precision, "_measured_gain", measure)
    return measure


@pytest.mark.parametrize(
    ("gain", "dtype"), [(0.2, None), (1.0, None), (1.29, None), (1.3, torch.bfloat16), (4.0, torch.bfloat16)]
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, gain: float, dtype: torch.dtype | None
) -> None:
    with_gain(monkeypatch, gain)
    assert autocast_dtype() is dtype


def test_what_was_measured_once_is_remembered(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    assert not fresh_cache.exists()
    with_gain(monkeypatch, 2.0)
    assert autocast_dtype() is torch.bfloat16
    other = with_gain(monkeypatch, 0.5)
    assert autocast_dtype() is torch.bfloat16
    assert other.measured == 0


@pytest.mark.parametrize("change", ["threads", "torch", "device"])
def test_another_machine_torch_or_number_of_threads_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with_gain(monkeypatch, 2.0)
    autocast_dtype()
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "0.1")
    else:
        monkeypatch.setattr(precision, "device_name", lambda: "another machine")
    other = with_gain(monkeypatch, 0.5)
    assert autocast_dtype() is None
    assert other.measured == 1


def test_the_gain_is_that_of_the_least_disturbed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[bool, Iterator[float]] = {
        False: iter([9.0, 6.0, 4.0, 8.0]),  # the first of each only sets up
        True: iter([0.1, 5.0, 3.0, 2.0]),
    }
    monkeypatch.setattr(precision, "_step_seconds", lambda blocks, tokens, bfloat16: next(seconds[bfloat16]))
    monkeypatch.setattr(precision, "exclusive", nullcontext)
    assert precision._measured_gain(repeats=3) == 2.0


def test_a_processor_that_emulates_bfloat16_is_known_by_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[bool, Iterator[float]] = {False: iter([1.0, 1.0, 2.0]), True: iter([9.0, 90.0, 50.0])}
    monkeypatch.setattr(precision, "_step_seconds", lambda blocks, tokens, bfloat16: next(seconds[bfloat16]))
    monkeypatch.setattr(precision, "exclusive", nullcontext)
    assert precision._measured_gain() == 0.02


@pytest.mark.slow
def test_a_real_measurement_is_a_number_that_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "exclusive", nullcontext)
    assert 0 < precision._measured_gain(repeats=1) < 1_000
