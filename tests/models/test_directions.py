from __future__ import annotations

import gc
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from kdnas_core.models import cut
from kdnas_core.models.cut import principal_directions, word_directions
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher
from tests.tiny import targets_of, teacher_of
from tests.tiny_families import CONFIGS, model_of


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def targets(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:120])


@pytest.mark.parametrize("count", [1, 8, 31])
def test_principal_directions_hold_more_of_the_states_than_random_ones(targets: Targets, count: int) -> None:
    found = principal_directions(targets, count)
    torch.testing.assert_close(found.T @ found, torch.eye(count), atol=1e-5, rtol=0)
    states = torch.from_numpy(targets.states_sample(20_000)).float().flatten(0, 1)
    random = torch.linalg.qr(torch.randn(32, count, generator=torch.Generator().manual_seed(0))).Q
    assert (states @ found).square().sum() > (states @ random).square().sum()


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_directions_of_words_leave_out_the_least_that_can_be(kind: str) -> None:
    model = model_of(kind, 200)
    table = model.get_input_embeddings().get_parameter("weight")
    found = word_directions(model, 5)
    left_out = (table - table @ found @ found.T).square().sum()
    torch.testing.assert_close(left_out, torch.linalg.svdvals(table)[5:].square().sum(), atol=1e-3, rtol=1e-3)


def test_directions_are_the_identity_where_nothing_is_left_out(targets: Targets) -> None:
    assert torch.equal(principal_directions(targets, 32), torch.eye(32))
    assert torch.equal(principal_directions(targets, 40), torch.eye(32, 40))
    assert torch.equal(word_directions(model_of("electra, factorised", 50), 20), torch.eye(16, 20))


def test_fewer_directions_are_the_first_of_more(targets: Targets) -> None:
    assert torch.equal(principal_directions(targets, 20)[:, :7], principal_directions(targets, 7))


def test_directions_are_found_once_and_forgotten_with_what_they_are_of(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Mock(wraps=torch.linalg.eigh)
    monkeypatch.setattr(torch.linalg, "eigh", found)
    model = model_of("bert", 50)
    for _ in range(3):
        principal_directions(targets, 8)
        word_directions(model, 8)
        word_directions(model, 9)
    assert found.call_count == 2
    key = id(model)
    assert key in cut._DIRECTIONS
    del model
    gc.collect()
    assert key not in cut._DIRECTIONS
