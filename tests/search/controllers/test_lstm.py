from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.search.controllers.lstm import LstmController, RewardPredictor
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import KDNAS_SPACE, SearchSpec
from tests import tiny  # noqa: F401  (one thread for things this small)

SPACE = SearchSpace((1, 2, 3, 4), (16, 24, 32), (32, 48, 64), (2, 4), ("gelu", "relu"))
PAPER = SearchSpec()


def reward(architecture: Architecture) -> float:
    """A reward that is the sum of one value for each of two knobs."""
    return 0.1 * architecture.layers + 0.4 * (architecture.hidden_size - 16) / 16


def tell(controller: LstmController, architectures: list[Architecture]) -> None:
    controller.tell([Outcome(architecture, reward(architecture)) for architecture in architectures])


def run(controller: LstmController, episodes: int, count: int) -> list[list[Proposal]]:
    history = []
    for episode in range(1, episodes + 1):
        history.append(controller.ask(episode, count))
        tell(controller, [proposal.architecture for proposal in history[-1]])
    return history


def spec(**fields: Any) -> SearchSpec:
    return SearchSpec(**fields)


def ranks(values: list[float]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.argsort(np.argsort(values))


def test_the_predictor_is_of_the_published_size() -> None:
    space = SearchSpace.from_spec(KDNAS_SPACE, Architecture(12, 768, 3072, 12))
    controller = LstmController(space, PAPER, seed=0)
    predictor = controller.predictor
    assert [embedding.embedding_dim for embedding in predictor.embeddings] == [32] * 5
    # one for each choice, and one for "no state yet"
    assert [embedding.num_embeddings for embedding in predictor.embeddings] == [6, 3, 9, 6, 4]
    assert (predictor.lstm.input_size, predictor.lstm.hidden_size, predictor.lstm.num_layers) == (160, 32, 1)
    assert (predictor.head.in_features, predictor.head.out_features) == (32, 1)


def test_it_learns_by_rmsprop_at_the_published_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, float]] = []
    rmsprop = torch.optim.RMSprop

    def remember(parameters: Any, lr: float) -> torch.optim.RMSprop:
        parameters = list(parameters)
        made.append((len(parameters), lr))
        return rmsprop(parameters, lr=lr)

    monkeypatch.setattr(torch.optim, "RMSprop", remember)
    controller = LstmController(SPACE, PAPER, seed=0)
    assert made == [(len(list(controller.predictor.parameters())), 1e-4)]


def test_the_predictor_reads_all_three_states_and_every_knob() -> None:
    torch.manual_seed(0)
    predictor = RewardPredictor([3, 3, 3])
    states = torch.zeros(1, 3, 3, dtype=torch.long)
    base = predictor(states)
    assert base.shape == (1,)
    for state in range(3):
        for knob in range(3):
            other = states.clone()
            other[0, state, knob] = 1
            assert not torch.isclose(predictor(other), base, atol=1e-7)


def test_epsilon_falls_from_all_to_a_floor() -> None:
    controller = LstmController(SPACE, PAPER, seed=0)
    schedule = [controller.epsilon(episode) for episode in range(1, 31)]
    assert schedule[:4] == pytest.approx([1.0, 0.95, 0.9, 0.85])
    assert schedule[14] == pytest.approx(0.3)  # the last of the 15 in the paper
    assert schedule[19:] == pytest.approx([0.05] * 11)


def test_told_the_same_again_it_proposes_the_same() -> None:
    fields = spec(epsilon_start=0.6, epsilon_decay=0.2, pool=30)
    torch.manual_seed(1)
    first = run(LstmController(SPACE, fields, seed=4), 2, 6)
    torch.manual_seed(2)
    assert run(LstmController(SPACE, fields, seed=4), 2, 6) == first
    assert run(LstmController(SPACE, fields, seed=5), 2, 6) != first


def test_the_random_numbers_of_others_are_left_alone() -> None:
    before = torch.get_rng_state()
    run(LstmController(SPACE, spec(epsilon_start=0.5), seed=0), 2, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seen_state_is_never_proposed_again_and_the_whole_space_is_used_up() -> None:
    controller = LstmController(SPACE, spec(epsilon_start=0.5, pool=40), seed=0)
    seen: list[Architecture] = []
    for episode in range(1, 100):
        proposals = controller.ask(episode, 40)
        if not proposals:
            break
        seen += [proposal.architecture for proposal in proposals]
        controller.tell([Outcome(proposal.architecture, None) for proposal in proposals])
    assert len(seen) == len(set(seen)) == len(SPACE)


def test_an_episode_is_full_where_the_pool_is_smaller_than_it() -> None:
    controller = LstmController(SPACE, spec(epsilon_start=0.5, pool=2), seed=0)
    proposals = controller.ask(1, 10)
    assert len({proposal.architecture for proposal in proposals}) == 10


def test_before_it_was_told_anything_nothing_is_predicted() -> None:
    proposals = LstmController(SPACE, spec(epsilon_start=0.5), seed=0).ask(1, 10)
    assert [proposal.predicted_reward for proposal in proposals] == [None] * 10


def test_once_told_every_candidate_has_a_prediction() -> None:
    controller = LstmController(SPACE, spec(epsilon_decay=0.5), seed=0)
    first, second = run(controller, 2, 6)
    assert {proposal.predicted_reward for proposal in first} == {None}
    assert all(isinstance(proposal.predicted_reward, float) for proposal in second)


def test_beside_the_random_share_the_best_predicted_are_proposed() -> None:
    points = list(SPACE)
    # epsilon 0 with all the space asked for shows every prediction
    ranking = LstmController(SPACE, spec(epsilon_start=0, epsilon_floor=0, pool=1_000), seed=1)
    half = LstmController(SPACE, spec(epsilon_start=0.5, epsilon_decay=0, pool=1_000), seed=1)
    for controller in (ranking, half):
        tell(controller, points[:20])
    ranked = ranking.ask(2, 1_000)
    predictions = [proposal.predicted_reward for proposal in ranked]
    assert {proposal.architecture for proposal in ranked} == set(points[20:])
    assert predictions == sorted(predictions, key=lambda value: -(value or 0))

    proposals = half.ask(2, 12)
    explored = {proposal.architecture for proposal in proposals[:6]}
    exploited = [proposal.architecture for proposal in proposals[6:]]
    best = [proposal.architecture for proposal in ranked if proposal.architecture not in explored]
    assert exploited == best[:6]
    assert explored != {proposal.architecture for proposal in ranked[:6]}


def test_the_best_so_far_is_remembered_beside_the_best_of_the_last_episode() -> None:
    controller = LstmController(SPACE, PAPER, seed=0)
    good, bad, worse = (
        Architecture(4, 32, 64, 2),
        Architecture(1, 16, 32, 2),
        Architecture(1, 16, 48, 2),
    )
    controller.tell([Outcome(bad, 0.2), Outcome(good, 0.9)])
    controller.tell([Outcome(worse, 0.1)])
    assert controller.best is not None
    assert controller.previous is not None
    assert (controller.best.state, controller.best.reward) == (SPACE.indices(good), 0.9)
    assert (controller.previous.state, controller.previous.reward) == (SPACE.indices(worse), 0.1)


def test_an_episode_in_which_all_failed_teaches_nothing_but_what_was_seen() -> None:
    controller = LstmController(SPACE, PAPER, seed=0)
    before = [weight.clone() for weight in controller.predictor.parameters()]
    failed = list(SPACE)[:3]
    controller.tell([Outcome(architecture, None) for architecture in failed])
    assert all(
        torch.equal(one, other) for one, other in zip(before, controller.predictor.parameters(), strict=True)
    )
    assert controller.best is None
    assert not set(failed) & {proposal.architecture for proposal in controller.ask(1, 1_000)}


def test_after_training_it_ranks_candidates_it_never_saw_by_their_reward() -> None:
    controller = LstmController(SPACE, spec(pool=1_000), seed=0)
    run(controller, 4, 20)  # of 180
    unseen = [point for point in SPACE if point not in controller.seen]
    controller.spec = spec(epsilon_start=0, epsilon_floor=0, pool=1_000)
    proposals = controller.ask(5, 1_000)
    assert {proposal.architecture for proposal in proposals} == set(unseen)
    predicted = [proposal.predicted_reward or 0.0 for proposal in proposals]
    measured = [reward(proposal.architecture) for proposal in proposals]
    # by chance the correlation of ranks among 100 is within 0.24 of 0 in 98 cases of 100
    assert np.corrcoef(ranks(predicted), ranks(measured))[0, 1] > 0.5
