from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from kdnas_core.architecture import Architecture, static_student
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.controllers.optuna import OptunaController
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.loop import Controller, Outcome, Proposal, search
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import SearchSpec
from tests import tiny  # noqa: F401  (one thread for things this small)

SPACE = SearchSpace((1, 2, 3), (16, 24), (32, 48), (2, 4), ("gelu",))
SPEC = SearchSpec(epsilon_start=0.7, epsilon_decay=0.3, pool=10)
EPISODES, CANDIDATES = 3, 4

CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "lstm": lambda: LstmController(SPACE, SPEC, seed=3),
    "random": lambda: RandomController(SPACE, seed=3),
    **{name: partial(OptunaController, SPACE, name, 2.0, seed=3) for name in ("optuna-tpe", "optuna-nsga2")},
}


class PlugPulled(Exception):
    pass


def reward(architecture: Architecture) -> float | None:
    """A reward; some architectures are over budget, and some fail."""
    if architecture.intermediate_size == 48 and architecture.layers == 3:
        return 0.0
    if architecture.intermediate_size == 48 and architecture.hidden_size == 16:
        return None
    return architecture.layers / 10 + architecture.hidden_size / 100


class FakeJournal:
    """Keeps a search in memory; ends it after a number of judged candidates."""

    def __init__(self) -> None:
        self.episodes: dict[int, list[Proposal]] = {}
        self.judged: dict[Architecture, float | None] = {}
        self.order: list[Architecture] = []
        self.plug: int | None = None

    def has(self, episode: int) -> bool:
        return episode in self.episodes

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        assert episode not in self.episodes
        self.episodes[episode] = list(proposals)

    def outcomes(self, episode: int) -> list[Outcome]:
        architectures = [proposal.architecture for proposal in self.episodes[episode]]
        for architecture in architectures:
            if architecture in self.judged:
                continue
            if len(self.order) == self.plug:
                raise PlugPulled
            self.judged[architecture] = reward(architecture)
            self.order.append(architecture)
        return [self._outcome(architecture) for architecture in architectures]

    def _outcome(self, architecture: Architecture) -> Outcome:
        known = self.judged[architecture]
        loss = 1 - known if known else None
        return Outcome(architecture, known, loss, None if known is None else float(architecture.layers))


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_search_asks_for_every_episode_and_judges_every_candidate_once(name: str) -> None:
    journal = FakeJournal()
    search(CONTROLLERS[name](), journal, EPISODES, CANDIDATES)
    assert list(journal.episodes) == [1, 2, 3]
    assert all(len(proposals) == CANDIDATES for proposals in journal.episodes.values())
    assert len(journal.order) == len(set(journal.order)) == EPISODES * CANDIDATES


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_search_goes_on_from_any_point_as_if_it_had_never_been_ended(name: str) -> None:
    whole = FakeJournal()
    search(CONTROLLERS[name](), whole, EPISODES, CANDIDATES)
    for plug in range(EPISODES * CANDIDATES):
        journal = FakeJournal()
        journal.plug = plug
        with pytest.raises(PlugPulled):
            search(CONTROLLERS[name](), journal, EPISODES, CANDIDATES)
        journal.plug = None
        search(CONTROLLERS[name](), journal, EPISODES, CANDIDATES)
        assert journal.episodes == whole.episodes
        assert journal.order == whole.order


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_search_that_is_over_can_be_run_again_without_any_effect(name: str) -> None:
    journal = FakeJournal()
    search(CONTROLLERS[name](), journal, EPISODES, CANDIDATES)
    before = dict(journal.episodes)
    journal.plug = len(journal.order)  # nothing more may be judged
    search(CONTROLLERS[name](), journal, EPISODES, CANDIDATES)
    assert journal.episodes == before


@pytest.mark.parametrize("name", CONTROLLERS)
def test_more_episodes_go_on_where_the_others_ended(name: str) -> None:
    whole, extended = FakeJournal(), FakeJournal()
    search(CONTROLLERS[name](), whole, EPISODES, CANDIDATES)
    search(CONTROLLERS[name](), extended, 1, CANDIDATES)
    search(CONTROLLERS[name](), extended, EPISODES, CANDIDATES)
    assert extended.episodes == whole.episodes


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_search_ends_where_the_space_is_used_up(name: str) -> None:
    journal = FakeJournal()
    search(CONTROLLERS[name](), journal, 100, 10)
    assert set(journal.order) == set(SPACE)
    assert [len(proposals) for proposals in journal.episodes.values()] == [10, 10, 4]


class Spy:
    """Records the calls of a controller."""

    def __init__(self) -> None:
        self.told: list[list[Outcome]] = []
        self.asked: list[tuple[int, int]] = []

    def ask(self, episode: int, count: int) -> list[Proposal]:
        self.asked.append((episode, count))
        return [Proposal(architecture) for architecture in list(SPACE)[episode * count :][:count]]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self.told.append(list(outcomes))


def test_what_is_judged_beside_the_space_is_in_the_first_episode_and_no_controller_is_told_of_it() -> None:
    journal, controller = FakeJournal(), Spy()
    search(controller, journal, 2, 3, beside=[static_student(16)])
    assert [len(proposals) for proposals in journal.episodes.values()] == [4, 3]
    assert static_student(16) in journal.judged
    assert [len(outcomes) for outcomes in controller.told] == [3, 3]
    assert not any(outcome.architecture.is_static for told in controller.told for outcome in told)
    search(Spy(), journal, 2, 3, beside=[static_student(16)])
    assert journal.order.count(static_student(16)) == 1


def test_a_controller_is_told_of_whole_episodes_in_order_also_of_those_before_a_restart() -> None:
    journal = FakeJournal()
    first, second = Spy(), Spy()
    search(first, journal, 2, 3)
    search(second, journal, 3, 3)
    assert first.asked == [(1, 3), (2, 3)]
    assert second.asked == [(3, 3)]
    assert second.told[:2] == first.told
    assert [[outcome.architecture for outcome in told] for told in second.told] == [
        [proposal.architecture for proposal in journal.episodes[episode]] for episode in (1, 2, 3)
    ]


def test_a_search_ends_before_its_last_episode_once_it_is_over() -> None:
    looks: list[tuple[int, int]] = []

    def is_over(episode: int, outcomes: Sequence[Outcome]) -> bool:
        looks.append((episode, len(outcomes)))
        return episode == 2

    journal = FakeJournal()
    search(CONTROLLERS["random"](), journal, EPISODES, CANDIDATES, (static_student(16),), is_over)
    assert list(journal.episodes) == [1, 2]
    assert looks == [(1, CANDIDATES), (2, 2 * CANDIDATES)]  # what stands beside the search is left out

    # one that goes on with three episodes known asks once, after the last of them
    whole, looks[:] = FakeJournal(), []
    search(CONTROLLERS["random"](), whole, EPISODES, CANDIDATES)
    search(CONTROLLERS["random"](), whole, EPISODES, CANDIDATES, is_over=is_over)
    assert looks == [(3, 3 * CANDIDATES)]
