from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.search.controllers.optuna import OptunaController
from kdnas_core.search.loop import Outcome
from kdnas_core.search.space import SearchSpace

SPACE = SearchSpace((1, 2, 3), (16, 24), (32, 48), (2, 4), ("gelu",))


@pytest.mark.parametrize("sampler", ["optuna-tpe", "optuna-nsga2"])
def test_every_point_of_a_space_is_proposed_once_though_a_sampler_repeats_itself(sampler: str) -> None:
    controller, seen = OptunaController(SPACE, sampler, 5.0, seed=1), list[Architecture]()
    while proposals := controller.ask(1, 5):
        shapes = [proposal.architecture for proposal in proposals]
        controller.tell([Outcome(shape, 0.5, 0.3, float(shape.layers)) for shape in shapes])
        seen += shapes
    assert len(seen) == len(set(seen)) == len(SPACE)
    assert set(seen) == set(SPACE)


def test_a_gaussian_process_proposes_from_what_it_was_told() -> None:
    controller = OptunaController(SPACE, "optuna-gp", 5.0, seed=1)
    first = [proposal.architecture for proposal in controller.ask(1, 12)]
    controller.tell([Outcome(shape, 0.5, 1 / shape.hidden_size, float(shape.layers)) for shape in first])
    (second,) = controller.ask(2, 1)
    assert second.architecture in SPACE
    assert second.architecture not in first


def test_a_sampler_is_told_latencies_losses_and_what_is_over_the_budget() -> None:
    controller = OptunaController(SPACE, "optuna-tpe", 5.0, seed=1)
    one, slow, failed, diverged = (proposal.architecture for proposal in controller.ask(1, 4))
    controller.tell(
        [
            Outcome(one, 0.5, 0.3, 4.0),
            Outcome(slow, 0.0, None, 6.0),
            Outcome(failed, None),
            Outcome(diverged, None, math.nan, 3.0),
        ]
    )
    states = [controller.study.trials[controller.trials[each].number].state for each in (failed, diverged)]
    assert states == [TrialState.FAIL, TrialState.FAIL]
    told = [each for each in controller.study.trials if each.state == TrialState.COMPLETE]
    assert [each.values for each in told] == [[4.0, 0.3], [6.0, 1.0]]
    assert [best.values for best in controller.study.best_trials] == [[4.0, 0.3]]


def test_a_search_that_another_controller_began_goes_on_with_what_it_found() -> None:
    controller, known = OptunaController(SPACE, "optuna-tpe", 5.0, seed=1), list(SPACE)[:20]
    controller.tell([Outcome(shape, 0.5, 0.3, float(shape.layers)) for shape in known])
    told = [each for each in controller.study.trials if each.state == TrialState.COMPLETE]
    assert len(told) == len(known)
    proposals = controller.ask(2, 4)
    assert {proposal.architecture for proposal in proposals} == set(SPACE) - set(known)


def test_a_space_of_presets_is_one_knob() -> None:
    space = SearchSpace((), (), (), (), (), presets=(PRESETS["tinybert4"], PRESETS["tinybert6"]))
    proposals = OptunaController(space, "optuna-nsga2", 5.0, seed=1).ask(1, 3)
    assert {proposal.architecture for proposal in proposals} == set(space)
