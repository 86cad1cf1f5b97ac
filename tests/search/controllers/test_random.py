from __future__ import annotations

from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace

SPACE = SearchSpace((1, 2, 3), (16, 24), (32, 48), (2, 4), ("gelu",))


def told(controller: RandomController, proposals: list[Proposal]) -> None:
    controller.tell([Outcome(proposal.architecture, 0.5) for proposal in proposals])


def test_told_the_same_again_it_proposes_the_same() -> None:
    histories = []
    for _ in range(2):
        controller = RandomController(SPACE, seed=5)
        history = []
        for episode in (1, 2, 3):
            history.append(controller.ask(episode, 5))
            told(controller, history[-1])
        histories.append(history)
    assert histories[0] == histories[1]


def test_another_seed_and_another_episode_propose_others() -> None:
    controller = RandomController(SPACE, seed=5)
    first = controller.ask(1, 5)
    assert controller.ask(1, 5) == first
    assert controller.ask(2, 5) != first
    assert RandomController(SPACE, seed=6).ask(1, 5) != first


def test_what_was_judged_is_never_proposed_again_until_nothing_is_left() -> None:
    controller = RandomController(SPACE, seed=0)
    seen = []
    for episode in range(1, 100):
        proposals = controller.ask(episode, 7)
        if not proposals:
            break
        seen += [proposal.architecture for proposal in proposals]
        told(controller, proposals)
    assert len(seen) == len(set(seen)) == len(SPACE)
    assert set(seen) == set(SPACE)


def test_what_failed_is_not_proposed_again_either() -> None:
    controller = RandomController(SPACE, seed=0)
    points = list(SPACE)
    controller.tell([Outcome(point, None) for point in points[:-1]])
    assert controller.ask(1, 5) == [Proposal(points[-1])]


def test_chance_predicts_nothing() -> None:
    proposals = RandomController(SPACE, seed=0).ask(1, 5)
    assert [proposal.predicted_reward for proposal in proposals] == [None] * 5
