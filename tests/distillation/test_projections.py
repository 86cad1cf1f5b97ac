from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch

from kdnas_core.distillation.objective import fit
from kdnas_core.distillation.terms import Pass, StateKind, StateTerm
from kdnas_core.models.capture import Captured
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.targets import Batch, Targets, make_batch
from tests.tiny import made_up_targets

Projection = Literal["per_layer", "shared"]
PROJECTIONS: list[Projection] = ["per_layer", "shared"]
LENGTHS = [3, 7, 1, 5]
WIDTH, TEACHER_WIDTH, TEACHER_LAYERS = 4, 5, 6


def a_term(
    projection: Projection = "per_layer", seed: int = 0, kind: StateKind = "hidden", width: int = WIDTH
) -> StateTerm:
    torch.manual_seed(seed)
    layers = [(), *layer_map("uniform+last", 2, TEACHER_LAYERS)]
    return StateTerm("term", kind, layers, (width, TEACHER_WIDTH), projection)


def a_batch(seed: int = 0, lengths: Sequence[int] = LENGTHS) -> tuple[Targets, Batch]:
    targets = made_up_targets(seed, lengths, TEACHER_LAYERS, TEACHER_WIDTH)
    return targets, make_batch(targets, range(len(lengths)), pad=0)


def a_pass(batch: Batch, seed: int = 0, width: int = WIDTH) -> Pass:
    random = torch.Generator().manual_seed(seed)
    states = [torch.randn(*batch.ids.shape, width, generator=random) for _ in range(3)]
    return passed(states)


def passed(states: Sequence[torch.Tensor]) -> Pass:
    return Pass(states, Captured(), torch.zeros(1, 1))


def picked(term: StateTerm, batch: Batch) -> list[int]:
    """Returns the real tokens of a batch that a term uses."""
    lengths = batch.mask.sum(1).tolist()
    starts = [sum(lengths[:text]) for text in range(len(lengths))]
    return starts if term.kind == "patience" else list(range(sum(lengths)))


@pytest.mark.parametrize("kind", ["hidden", "cosine", "patience", "feature_map"])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_nearly_the_least_squares_solution(
    projection: Projection, seed: int, kind: StateKind
) -> None:
    rng = np.random.default_rng(seed)
    _, batch = a_batch(seed, rng.integers(1, 9, 80).tolist())
    given, term = a_pass(batch, seed), a_term(projection, kind=kind)
    fit([term], [(given, batch)])
    rows = picked(term, batch)
    seen, wanted = [], []
    for layer, teacher_layers in term.layers.items():
        states = given.hidden[layer][batch.mask.bool()].double().numpy()[rows]
        seen.append(np.hstack([states, np.ones((len(rows), 1))]))
        outputs = [batch.teacher("hidden", of).double().numpy()[rows] for of in teacher_layers]
        wanted.append(np.hstack(outputs))
    if projection == "shared":
        seen, wanted = [np.vstack(seen)], [np.vstack(wanted)]
    fitted = list(dict.fromkeys(term.projections.values()))
    for linear, left, right in zip(fitted, seen, wanted, strict=True):
        best = np.linalg.lstsq(left, right, rcond=None)[0]
        found = np.vstack([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
        np.testing.assert_allclose(found, best, atol=2e-3)


def test_the_fit_takes_all_batches_and_leaves_padding_out() -> None:
    targets, whole = a_batch(0, [4, 9, 6, 2])
    given = a_pass(whole)
    at_once, in_parts = a_term(seed=1), a_term(seed=2)
    fit([at_once], [(given, whole)])
    parts = [make_batch(targets, rows, pad=0) for rows in ([0, 1], [2, 3])]
    assert whole.ids.shape[1] > parts[1].ids.shape[1]
    fit(
        [in_parts],
        (
            (passed([state[first : first + 2, : part.ids.shape[1]] for state in given.hidden]), part)
            for first, part in zip((0, 2), parts, strict=True)
        ),
    )
    for layer, linear in at_once.projections.items():
        torch.testing.assert_close(linear.weight, in_parts.projections[layer].weight)
        torch.testing.assert_close(linear.bias, in_parts.projections[layer].bias)


def test_several_terms_are_fitted_each_as_if_it_were_alone() -> None:
    _, batch = a_batch()
    given = a_pass(batch)
    together, alone = ([a_term(seed=seed, kind=kind) for kind in ("hidden", "patience")] for seed in (1, 2))
    fit(together, [(given, batch)])
    for term in alone:
        fit([term], [(given, batch)])
    for one, other in zip(together, alone, strict=True):
        for layer, linear in one.projections.items():
            torch.testing.assert_close(linear.weight, other.projections[layer].weight)


def test_a_term_without_projections_needs_no_fit() -> None:
    _, batch = a_batch()
    term = a_term(kind="cosine", width=TEACHER_WIDTH)
    given = a_pass(batch, width=TEACHER_WIDTH)
    before = term(given, batch)
    fit([term], [(given, batch)])
    assert term.projections == {}
    assert torch.equal(term(given, batch), before)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_fitted_projection_is_never_worse_than_a_random_one(projection: Projection, seed: int) -> None:
    _, batch = a_batch(seed)
    term, given = a_term(projection, seed), a_pass(batch, seed)
    before = term(given, batch).mean().item()
    fit([term], [(given, batch)])
    assert term(given, batch).mean().item() < before


def test_states_that_do_not_vary_can_be_fitted_too() -> None:
    _, batch = a_batch()
    term = a_term()
    given = passed([torch.ones(*batch.ids.shape, WIDTH)] * 3)
    fit([term], [(given, batch)])
    torch.testing.assert_close(term(given, batch), torch.ones(4), atol=1e-2, rtol=0)


def test_the_fit_leaves_no_gradient_behind_and_the_projections_can_still_learn() -> None:
    _, batch = a_batch()
    term = a_term()
    given = passed([state.requires_grad_() for state in a_pass(batch).hidden])
    fit([term], [(given, batch)])
    assert all(weight.grad is None and weight.requires_grad for weight in term.parameters())
    assert all(state.grad is None for state in given.hidden)
