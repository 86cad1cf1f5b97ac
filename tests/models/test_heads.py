from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from kdnas_core.models.families import canonical, own_names
from kdnas_core.models.heads import Weights, order_heads
from kdnas_core.models.targets import Targets, make_batch
from kdnas_core.models.teacher import Teacher
from tests.tiny import targets_of, teacher_of
from tests.tiny_families import DISTINCT, family_teacher

QUERY, KEY = (f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def train(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:40])


@pytest.mark.parametrize("kind", DISTINCT)
def test_a_teacher_whose_heads_are_in_order_reads_as_before(
    kind: str, teacher: Teacher, train: Targets
) -> None:
    model = family_teacher(teacher, kind).model
    family, batch = model.config.model_type, make_batch(train, range(len(train)), pad=0)
    before = canonical(model.state_dict(), family)
    in_order = order_heads(before, 4, 4)
    turned = copy.deepcopy(model)
    turned.load_state_dict(own_names(in_order, family))

    assert not torch.equal(in_order[QUERY], before[QUERY])
    with torch.no_grad():
        one, other = (
            batch.real(each(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state)
            for each in (model, turned)
        )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_the_first_dimensions_of_a_head_in_order_are_the_best_of_that_number(teacher: Teacher) -> None:
    weights = canonical(teacher.model.state_dict(), "bert")
    in_order = order_heads(weights, 4, 4)
    for rank in (1, 4, 8):
        for head in range(4):
            whole = products(weights, slice(8 * head, 8 * head + 8))
            kept = products(in_order, slice(8 * head, 8 * head + rank))
            expected = torch.linalg.svdvals(whole)[rank:].square().sum()
            assert (whole - kept).square().sum() == pytest.approx(float(expected), abs=1e-8)


def products(weights: Weights, rows: slice) -> torch.Tensor:
    """Queries times keys with their biases, (H + 1, H + 1), in float64."""
    query, key = (
        torch.cat([weights[name][rows], weights[name.replace("weight", "bias")][rows, None]], 1).double()
        for name in (QUERY, KEY)
    )
    return query.T @ key
