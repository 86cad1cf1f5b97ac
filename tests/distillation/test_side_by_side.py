from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from kdnas_core.distillation import side_by_side as module
from kdnas_core.distillation.side_by_side import best_number
from tests.tiny_runs import own_machine


@pytest.fixture(autouse=True)
def eight_threads(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


def best(parameters: int) -> int:
    return best_number(parameters, lambda: None)


def paced(monkeypatch: pytest.MonkeyPatch, *steps: float) -> list[int]:
    """Sets the steps a second of 1, 2, 4 and 8 processes; returns the numbers that are measured."""
    measured: list[int] = []

    def pace(number: int, threads: int) -> float:
        assert threads == 8
        measured.append(number)
        return steps[number.bit_length() - 1]

    monkeypatch.setattr(module, "_pace", pace)
    return measured


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((10, 15, 18, 17), 4), ((10, 9, 8, 7), 1), ((10, 10.5, 10.9, 9), 1), ((10, 11, 12, 13), 8)],
)
def test_the_number_is_the_one_that_trains_most_unless_the_gain_is_small(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[float, ...], expected: int
) -> None:
    paced(monkeypatch, *steps)
    assert best(22_000_000) == expected


def test_it_is_measured_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = paced(monkeypatch, 10, 15, 18, 17)
    assert best(22_000_000) == best(22_000_000) == 4
    assert measured == [1, 2, 4, 8]


def test_there_are_no_more_processes_than_the_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, 10, 15, 18, 25)
    free = SimpleNamespace(available=9 * module.MEMORY_EACH)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert best(0) == 8
    assert best(600_000_000) == 1  # each takes 9 GB
    free.available = 2.5 * module.MEMORY_EACH
    assert best(0) == 2


def test_more_are_measured_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = paced(monkeypatch, 10, 15, 18, 25)
    free = SimpleNamespace(available=2.5 * module.MEMORY_EACH)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert best(0) == 2
    free.available = 9 * module.MEMORY_EACH
    assert best(0) == 8
    assert measured == [1, 2, 1, 2, 4, 8]


def test_several_gpus_share_threads_and_memory_and_are_divided_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: ["0", "1"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    paced(monkeypatch, 10, 15, 18, 25)
    free = SimpleNamespace(available=9 * module.MEMORY_EACH)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert best(0) == 8  # four on each: no room for eight
    free.available = 17 * module.MEMORY_EACH
    assert best(0) == 16


def test_a_number_of_processes_that_cannot_start_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__name__", "kdnas_core.no_such_module")
    assert module._pace(2, 2) == 0.0


@pytest.mark.slow
def test_processes_train_together_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_machine(tmp_path):
        assert module._pace(2, 2) > 0
