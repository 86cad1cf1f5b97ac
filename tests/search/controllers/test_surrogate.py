from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.controllers.surrogate import Setting, SurrogateController, expected_gain
from kdnas_core.search.loop import Controller, Outcome
from kdnas_core.search.space import SearchSpace
from kdnas_core.search.stopping import Outlook

TEACHER, TEACHER_MS = Architecture(6, 384, 1536, 12), 40.0
BUDGETS = tuple(TEACHER_MS / speedup for speedup in (2, 3, 5, 7, 10))
SPACE = SearchSpace(
    tuple(range(1, 7)), tuple(range(96, 385, 32)), tuple(range(96, 1537, 96)), (3, 6, 12), ("gelu",)
)


def ms_of(shape: Architecture) -> float:
    """A made-up latency: not in proportion to multiply-adds."""
    share = shape.flops(128) / TEACHER.flops(128)
    return 0.35 + 0.25 * shape.layers + (TEACHER_MS - 2) * share * (1 + 0.02 * shape.attention_heads / 12)


def loss_of(shape: Architecture) -> float:
    """A made-up loss: powers of the dimensions, an interaction, and a ripple."""
    layers, width, inner = (
        math.log(own / theirs) for own, theirs in zip(shape.shape, TEACHER.shape, strict=True)
    )
    ripple = 0.02 * math.sin(7 * layers + 5 * width + 3 * inner)
    return math.exp(-1.6 - 0.12 * layers - 0.55 * width - 0.08 * inner + 0.05 * layers * width + ripple)


def value(known: Sequence[tuple[float, float]]) -> float:
    """The mean of the best losses within the budgets; 1 where nothing is within."""
    return float(
        np.mean([min([loss for ms, loss in known if ms <= budget], default=1.0) for budget in BUDGETS])
    )


BEST = value([(ms_of(shape), loss_of(shape)) for shape in SPACE])


def excess_after(controller: Controller, evaluations: int, seed: int, batch: int = 5) -> float:
    """By what share the best losses exceed the best of the space, judged with noise."""
    rng, known = random.Random(seed), list[tuple[float, float]]()
    for episode in range(1, evaluations // batch + 1):
        outcomes = []
        for proposal in controller.ask(episode, batch):
            shape = proposal.architecture
            ms = ms_of(shape) * math.exp(rng.gauss(0, 0.01))
            if ms > max(BUDGETS):
                outcomes.append(Outcome(shape, 0.0, None, ms))
                continue
            outcomes.append(Outcome(shape, 0.5, loss_of(shape) * math.exp(rng.gauss(0, 0.01)), ms))
            known.append((ms, loss_of(shape)))
        controller.tell(outcomes)
    return value(known) / BEST - 1


def surrogate(seed: int = 0, space: SearchSpace = SPACE) -> SurrogateController:
    return SurrogateController(space, Setting(BUDGETS, TEACHER, TEACHER_MS), seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_thirty_evaluations_come_near_the_best_of_a_thousand_and_random_ones_do_not(seed: int) -> None:
    assert excess_after(surrogate(seed), 30, seed) < 0.01
    assert excess_after(RandomController(SPACE, seed), 30, seed) > 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_two_episodes_are_enough_to_come_near(seed: int) -> None:
    assert (
        excess_after(surrogate(seed), 10, seed) < 0.1 < excess_after(RandomController(SPACE, seed), 10, seed)
    )


def test_what_it_proposes_follows_from_its_seed_and_from_what_it_was_told() -> None:
    def told(seed: int) -> list[list[Architecture]]:
        controller, asked = surrogate(seed), []
        for episode in (1, 2, 3):
            shapes = [proposal.architecture for proposal in controller.ask(episode, 4)]
            controller.tell([Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in shapes])
            asked.append(shapes)
        return asked

    once, again, other = told(0), told(0), told(1)
    assert once == again != other
    assert len({shape for shapes in once for shape in shapes}) == 12

    resumed = surrogate(0)
    for shapes in once[:2]:
        resumed.tell([Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in shapes])
    assert [proposal.architecture for proposal in resumed.ask(3, 4)] == once[2]


# Spaces and searches at the edge


@pytest.mark.parametrize("layers", [(2,), (2, 3)])
def test_a_space_of_one_or_two_points_is_proposed_once(layers: tuple[int, ...]) -> None:
    space = SearchSpace(layers, (96,), (96,), (3,), ("gelu",))
    controller = surrogate(space=space)
    first = controller.ask(1, 5)
    assert {proposal.architecture for proposal in first} == set(space)
    controller.tell([Outcome(each.architecture, 0.5, 0.4, 3.0) for each in first])
    assert controller.ask(2, 5) == []


def test_it_begins_with_what_earlier_searches_have_found() -> None:
    shapes = SPACE.sample(random.Random(2), 60, ())
    earlier = [Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in shapes]
    warm = SurrogateController(SPACE, Setting(BUDGETS, TEACHER, TEACHER_MS), 0, earlier)
    assert excess_after(warm, 5, 0) < 0.03 < excess_after(surrogate(), 5, 0)
    # what is known may be proposed, since only what was judged in this search is on its frontier
    layers, width, inner, heads = (*shapes[0].shape, shapes[0].attention_heads)
    one = SearchSpace((layers,), (width,), (inner,), (heads,), ("gelu",))
    again = SurrogateController(one, warm.setting, 0, earlier).ask(1, 5)
    assert [proposal.architecture for proposal in again] == [shapes[0]]


def test_what_was_judged_in_another_space_is_learnt_from_and_never_proposed() -> None:
    controller = surrogate()
    others = [Architecture(layers, 400, 100, 4) for layers in (1, 2, 3)]
    controller.tell([Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in others])
    shapes = [proposal.architecture for proposal in controller.ask(2, 5)]
    assert len(shapes) == 5 and all(shape in SPACE for shape in shapes)


OUTCOMES: dict[str, Callable[[Architecture], Outcome]] = {
    "over the budget": lambda shape: Outcome(shape, 0.0, None, 100.0),
    "over the budget by an estimate": lambda shape: Outcome(shape, 0.0),
    "failed": lambda shape: Outcome(shape, None),
    "not a number": lambda shape: Outcome(shape, None, math.nan, 5.0),
    "equal": lambda shape: Outcome(shape, 0.5, 0.3, 3.0),
    "perfect": lambda shape: Outcome(shape, 1.0, 0.0, 3.0),
    "pruned": lambda shape: Outcome(shape, 0.4, 0.6, None, pruned=True),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_it_goes_on_whatever_became_of_all_candidates(kind: str) -> None:
    controller, seen = surrogate(), set[Architecture]()
    for episode in (1, 2, 3):
        shapes = [proposal.architecture for proposal in controller.ask(episode, 4)]
        assert len(set(shapes) - seen) == 4
        seen.update(shapes)
        controller.tell([OUTCOMES[kind](shape) for shape in shapes])


def test_where_nothing_seems_to_be_within_the_budget_the_fastest_are_tried() -> None:
    controller = SurrogateController(SPACE, Setting((0.001,), TEACHER, TEACHER_MS), 0)
    flops = sorted(shape.flops(128) for shape in SPACE)
    for episode in (1, 2, 3):
        shapes = [proposal.architecture for proposal in controller.ask(episode, 5)]
        assert max(shape.flops(128) for shape in shapes) < flops[len(flops) // 10]
        controller.tell([Outcome(shape, 0.0, None, ms_of(shape)) for shape in shapes])


# What is left to gain


def test_what_is_left_to_gain_falls_as_more_is_known() -> None:
    few, many = surrogate(), surrogate()
    shapes = SPACE.sample(random.Random(3), 300, ())
    few.tell([Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in shapes[:12]])
    many.tell([Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in shapes])
    before, after = few.outlook(1, 5), many.outlook(1, 5)
    assert before.gain is not None and after.gain is not None
    assert before.gain > 5 * after.gain and not before.no_gain
    assert len(before.chances) == len(BUDGETS)
    assert all(chance is not None and chance > 0.5 for chance in before.chances)  # of 12 none is the best


def test_the_chance_that_an_unseen_one_is_better_is_that_of_the_truth() -> None:
    shapes = SPACE.sample(random.Random(1), len(SPACE), ())
    best = sorted((shape for shape in shapes if ms_of(shape) <= BUDGETS[0]), key=loss_of)
    for without, least, most in ((best[:10], 0.6, 1.0), ([], 0.0, 0.0)):
        controller = surrogate()
        known = [shape for shape in shapes if shape not in without]
        told = [Outcome(shape, 0.5, loss_of(shape), ms_of(shape)) for shape in known[:400]]
        controller.tell([*told, *[Outcome(shape, 0.0) for shape in known[400:]]])  # those failed
        chance = controller.outlook(1, 5).chances[0]
        assert chance is not None and least <= chance <= most


def test_without_a_loss_nothing_is_known_of_the_gain() -> None:
    controller = surrogate()
    assert controller.outlook(1, 5) == Outlook(1, None, (None,) * len(BUDGETS))
    slow = next(shape for shape in SPACE if ms_of(shape) > BUDGETS[1])
    controller.tell([Outcome(slow, 0.5, 0.3, BUDGETS[0] - 0.1)])
    assert controller.outlook(1, 5).chances[1:] == (None,) * (len(BUDGETS) - 1)


def test_a_space_that_was_judged_has_no_gain_left() -> None:
    space = SearchSpace((2, 3), (96,), (96,), (3,), ("gelu",))
    controller = surrogate(space=space)
    controller.tell([Outcome(shape, 0.5, 0.4, 2.0) for shape in space])
    outlook = controller.outlook(1, 5)
    assert (outlook.gain, outlook.chances) == (0.0, (0.0,) * len(BUDGETS))
    assert controller.outlook(2, 5).after(outlook).no_gain


# The expected gain


def test_the_expected_gain_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    mean, variance, ms = np.array([-1.0, -1.2, -0.9]), np.array([0.04, 0.01, 0.09]), np.array([3.0, 5.0, 4.0])
    thresholds, best = np.array([3.1, 4.5, 8.0]), np.array([1.0, 0.4, 0.33])
    losses = np.exp(mean + np.sqrt(variance) * rng.normal(size=(400_000, 3)))
    latencies = ms * np.exp(0.05 * rng.normal(size=(400_000, 3)))
    drawn = np.zeros(3)
    for threshold, level in zip(thresholds, best, strict=True):
        drawn += (np.maximum(level - losses, 0) * (latencies <= threshold)).mean(0)
    assert expected_gain(mean, variance, ms, thresholds, best, 0.05) == pytest.approx(drawn, rel=0.02)


def test_nothing_is_gained_by_what_is_surely_worse_or_slower() -> None:
    arguments = np.array([5.0]), np.array([0.3]), 0.02
    worse = expected_gain(np.array([-0.5]), np.array([1e-6]), np.array([3.0]), *arguments)
    slower = expected_gain(np.array([-2.0]), np.array([1e-6]), np.array([9.0]), *arguments)
    assert worse.max() < 1e-9 and slower.max() < 1e-9
