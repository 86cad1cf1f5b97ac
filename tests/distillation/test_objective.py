from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.student import new_student
from kdnas_core.distillation.targets import Batch, Targets, make_batch
from tests.tiny import made_up_targets, targets_of, teacher_of

Projection = Literal["per_layer", "shared"]
PROJECTIONS: list[Projection] = ["per_layer", "shared"]
LENGTHS = [3, 7, 1, 5]
WIDTH, TEACHER_WIDTH, TEACHER_LAYERS = 4, 5, 6


def an_objective(
    projection: Projection = "per_layer", layers: int = 2, seed: int = 0
) -> HiddenStateObjective:
    torch.manual_seed(seed)
    learned = layer_map("uniform+last", layers, TEACHER_LAYERS)
    return HiddenStateObjective(learned, WIDTH, TEACHER_WIDTH, projection)


def a_batch(seed: int = 0, lengths: Sequence[int] = LENGTHS) -> tuple[Targets, Batch]:
    targets = made_up_targets(seed, lengths, TEACHER_LAYERS, TEACHER_WIDTH)
    return targets, make_batch(targets, range(len(lengths)), pad=0)


def states_for(batch: Batch, layers: int = 2, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*batch.ids.shape, WIDTH, generator=random) for _ in range(layers)]


def by_loops(
    objective: HiddenStateObjective, states: Sequence[torch.Tensor], lengths: Sequence[int], targets: Targets
) -> list[list[float]]:
    """The losses as the method is written: position by position, in float64."""
    losses: list[list[float]] = []
    for layer, state in enumerate(states):
        linear = objective.projections[layer if len(objective.projections) > 1 else 0]
        weight, bias = linear.weight.double().tolist(), linear.bias.double().tolist()
        losses.append([])
        for role, teacher_layer in enumerate(objective.layers[layer]):
            total, count = 0.0, 0
            for text, length in enumerate(lengths):
                for position in range(length):
                    mine = state[text, position].double().tolist()
                    theirs = targets.hidden[targets.offsets[text] + position, teacher_layer - 1]
                    for out in range(TEACHER_WIDTH):
                        row = role * TEACHER_WIDTH + out
                        predicted = bias[row] + sum(w * x for w, x in zip(weight[row], mine, strict=True))
                        total += (predicted - float(theirs[out])) ** 2
                        count += 1
            losses[-1].append(total / count / float(targets.variance[teacher_layer - 1]))
    return losses


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_losses_are_those_of_the_written_method(projection: Projection, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 5).tolist()
    layers = int(rng.integers(1, 7))
    targets, batch = a_batch(seed, lengths)
    objective, states = an_objective(projection, layers, seed), states_for(batch, layers, seed)
    expected = by_loops(objective, states, lengths, targets)
    np.testing.assert_allclose(objective(states, batch, targets).detach().numpy(), expected, rtol=1e-5)


def test_hidden_states_at_padding_never_change_a_loss() -> None:
    targets, batch = a_batch()
    objective, states = an_objective(), states_for(batch)
    losses = objective(states, batch, targets)
    other = [torch.where(batch.mask[..., None].bool(), state, 1e6) for state in states]
    assert torch.equal(objective(other, batch, targets), losses)


def test_more_padding_never_changes_a_loss() -> None:
    targets, batch = a_batch()
    objective, states = an_objective(), states_for(batch)
    losses = objective(states, batch, targets)
    pad = torch.nn.functional.pad
    longer = Batch(pad(batch.ids, (0, 9)), pad(batch.mask, (0, 9)), batch.hidden)
    stretched = [pad(state, (0, 0, 0, 9), value=3.0) for state in states]
    assert torch.equal(objective(stretched, longer, targets), losses)


def test_token_ids_at_padding_never_change_the_losses_of_a_real_student(
    tiny_teacher: Path, texts: list[str]
) -> None:
    teacher = teacher_of(tiny_teacher)
    targets = targets_of(teacher, texts[:6])
    student = new_student(teacher, Architecture(2, 16, 32, 2), seed=0)
    objective = HiddenStateObjective(layer_map("uniform+last", 2, 4), 16, 32, "per_layer")
    batch = make_batch(targets, range(6), pad=0)
    # of unequal lengths, or else there is no padding to change
    assert not batch.mask.bool().all()

    def losses(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            result: torch.Tensor = objective(
                output.hidden_states[1:], Batch(ids, mask, batch.hidden), targets
            )
        return result

    expected = losses(batch.ids, batch.mask)
    other = torch.where(batch.mask.bool(), batch.ids, 123)
    torch.testing.assert_close(losses(other, batch.mask), expected, rtol=1e-5, atol=1e-5)
    pad = torch.nn.functional.pad
    longer = losses(pad(batch.ids, (0, 8), value=77), pad(batch.mask, (0, 8)))
    torch.testing.assert_close(longer, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_student_and_projections_but_never_the_teacher(
    tiny_teacher: Path, texts: list[str]
) -> None:
    teacher = teacher_of(tiny_teacher)
    targets = targets_of(teacher, texts[:4])
    student = new_student(teacher, Architecture(2, 16, 32, 2), seed=0)
    objective = HiddenStateObjective(layer_map("uniform+last", 2, 4), 16, 32, "per_layer")
    batch = make_batch(targets, range(4), pad=0)
    output = student(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    objective(output.hidden_states[1:], batch, targets).mean().backward()
    unmoved = {
        name
        for name, weight in [*student.named_parameters(), *objective.named_parameters()]
        if weight.grad is None or not weight.grad.abs().sum() > 0
    }
    # no hidden state passes through the pooler, and a bias of all keys alike shifts no attention
    assert {name for name in unmoved if "pooler" not in name and ".key.bias" not in name} == set()
    assert not batch.hidden.requires_grad
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.model.parameters())


def test_the_optimiser_is_given_every_projection() -> None:
    assert len(list(an_objective("per_layer").parameters())) == 4  # a weight and a bias for each layer
    assert len(list(an_objective("shared").parameters())) == 2


def test_a_shared_projection_is_one_for_all_layers() -> None:
    targets, batch = a_batch()
    objective = an_objective("shared")
    # both layers learn the same teacher layers here, so that equal states must give equal losses
    objective.layers = [(3, 5), (3, 5)]
    state = states_for(batch)[0]
    losses = objective([state, state], batch, targets)
    assert torch.equal(losses[0], losses[1])
    assert len(objective.projections) == 1


def test_projections_of_their_own_differ_from_layer_to_layer() -> None:
    targets, batch = a_batch()
    objective = an_objective("per_layer")
    objective.layers = [(3, 5), (3, 5)]
    state = states_for(batch)[0]
    losses = objective([state, state], batch, targets)
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_nearly_the_least_squares_solution(projection: Projection, seed: int) -> None:
    lengths = [12, 30, 25, 18]
    _, batch = a_batch(seed, lengths)
    states = states_for(batch, seed=seed)
    objective = an_objective(projection)
    objective.fit([(states, batch)])
    real = batch.mask.bool()
    seen = [np.hstack([state[real].double().numpy(), np.ones((sum(lengths), 1))]) for state in states]
    wanted = [
        np.hstack([batch.hidden[:, t - 1].double().numpy() for t in learned]) for learned in objective.layers
    ]
    if projection == "shared":
        seen, wanted = [np.vstack(seen)], [np.vstack(wanted)]
    for linear, left, right in zip(objective.projections, seen, wanted, strict=True):
        best = np.linalg.lstsq(left, right, rcond=None)[0]
        fitted = np.vstack([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
        np.testing.assert_allclose(fitted, best, atol=2e-3)


def test_the_fit_takes_all_batches_and_leaves_padding_out() -> None:
    targets, whole = a_batch(0, [4, 9, 6, 2])
    states = states_for(whole)
    at_once, in_parts = an_objective(seed=1), an_objective(seed=2)
    at_once.fit([(states, whole)])
    parts = [make_batch(targets, rows, pad=0) for rows in ([0, 1], [2, 3])]
    assert whole.ids.shape[1] > parts[1].ids.shape[1]
    in_parts.fit(
        ([state[first : first + 2, : part.ids.shape[1]] for state in states], part)
        for first, part in zip((0, 2), parts, strict=True)
    )
    for one, other in zip(at_once.projections, in_parts.projections, strict=True):
        torch.testing.assert_close(one.weight, other.weight)
        torch.testing.assert_close(one.bias, other.bias)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_fitted_projection_is_never_worse_than_a_random_one(projection: Projection, seed: int) -> None:
    targets, batch = a_batch(seed)
    objective, states = an_objective(projection, seed=seed), states_for(batch, seed=seed)
    before = objective(states, batch, targets).mean().item()
    objective.fit([(states, batch)])
    assert objective(states, batch, targets).mean().item() < before


def test_states_that_do_not_vary_can_be_fitted_too() -> None:
    targets, batch = a_batch()
    objective = an_objective()
    objective.fit([([torch.ones(*batch.ids.shape, WIDTH)] * 2, batch)])
    losses = objective([torch.ones(*batch.ids.shape, WIDTH)] * 2, batch, targets)
    torch.testing.assert_close(losses, torch.ones(2, 2), atol=1e-2, rtol=0)


def test_a_student_that_predicts_the_mean_scores_one(tiny_teacher: Path, texts: list[str]) -> None:
    teacher = teacher_of(tiny_teacher)
    targets = targets_of(teacher, texts[:40])
    objective = HiddenStateObjective([(1, 3), (2, 4)], 7, 32, "per_layer")
    means = torch.from_numpy(targets.hidden.astype(np.float64).mean(axis=0)).float()  # (N, H)
    with torch.no_grad():
        for linear, learned in zip(objective.projections, objective.layers, strict=True):
            linear.weight.zero_()
            linear.bias.copy_(torch.cat([means[teacher_layer - 1] for teacher_layer in learned]))
    batch = make_batch(targets, range(40), pad=0)
    losses = objective([torch.randn(*batch.ids.shape, 7)] * 2, batch, targets)
    torch.testing.assert_close(losses, torch.ones(2, 2), atol=1e-3, rtol=0)
