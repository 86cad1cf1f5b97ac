"""The controller of KD-NAS (arXiv 2303.09639): an LSTM that predicts a candidate's reward.

It is a regressor trained on measured rewards, not a policy. The share of random candidates, epsilon, falls
with the episodes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kdnas_core.architecture import Architecture
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import SearchSpec

EMBEDDING = 32  # for each knob
HIDDEN = 32
LEARNING_RATE = 1e-4  # RMSprop
PASSES = 10  # over an episode's outcomes; the sources differ between 1 and 10

State = tuple[int, ...]  # the index of the choice for each knob


class RewardPredictor(nn.Module):
    """[previous episode's best, best so far, candidate] -> reward of the candidate."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__()
        # one more embedding for each knob means "no state yet"
        self.embeddings = nn.ModuleList(nn.Embedding(count + 1, EMBEDDING) for count in choices)
        self.lstm = nn.LSTM(EMBEDDING * len(choices), HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Predicts (B,) rewards from (B, 3 states, knobs) indices."""
        knobs = [embedding(states[..., knob]) for knob, embedding in enumerate(self.embeddings)]
        _, (hidden, _) = self.lstm(torch.cat(knobs, dim=-1))  # (1, B, HIDDEN)
        rewards: torch.Tensor = self.head(hidden[-1]).squeeze(-1)
        return rewards


@dataclass(frozen=True)
class _Best:
    state: State
    reward: float


class LstmController:
    """Chooses candidates epsilon-greedily from a random pool by predicted reward."""

    def __init__(self, space: SearchSpace, spec: SearchSpec, seed: int) -> None:
        self.space = space
        self.spec = spec
        self.seed = seed
        self.seen: set[Architecture] = set()
        self.previous: _Best | None = None
        self.best: _Best | None = None
        choices = space.choices()
        self._nothing: State = tuple(choices)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.predictor = RewardPredictor(choices)
        self._optimiser = torch.optim.RMSprop(self.predictor.parameters(), lr=LEARNING_RATE)

    def epsilon(self, episode: int) -> float:
        """Returns the share of random candidates in an episode, counted from 1."""
        falling = self.spec.epsilon_start - self.spec.epsilon_decay * (episode - 1)
        return max(self.spec.epsilon_floor, falling)

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Returns a share epsilon of random candidates, and the best predicted ones of a random pool."""
        rng = random.Random(f"{self.seed}/{episode}")
        explored = self.space.sample(rng, round(self.epsilon(episode) * count), self.seen)
        wanted = count - len(explored)
        pool = self.space.sample(rng, max(self.spec.pool, wanted), self.seen | set(explored))
        rewards = self._predict(pool)
        ranked = sorted(range(len(pool)), key=lambda index: -rewards[index])
        chosen = [*explored, *(pool[index] for index in ranked[:wanted])]
        if self.best is None:  # predictions of an untrained network are meaningless
            return [Proposal(architecture) for architecture in chosen]
        return list(map(Proposal, chosen, self._predict(chosen)))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Updates the episode's best and the best so far, then learns from the episode's rewards."""
        self.seen.update(outcome.architecture for outcome in outcomes)
        rewarded = [
            _Best(self.space.indices(outcome.architecture), outcome.reward)
            for outcome in outcomes
            if outcome.reward is not None and outcome.architecture in self.space  # it may have been another
        ]
        if not rewarded:
            return
        self.previous = max(rewarded, key=lambda candidate: candidate.reward)
        self.best = max([self.previous] + ([self.best] if self.best else []), key=lambda best: best.reward)
        for _ in range(PASSES):
            for example in (*rewarded, self.best, self.previous):
                self._learn(example)

    def _learn(self, example: _Best) -> None:
        predicted = self.predictor(self._inputs([example.state]))
        loss = nn.functional.mse_loss(predicted, torch.tensor([example.reward]))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    @torch.no_grad()
    def _predict(self, architectures: Sequence[Architecture]) -> list[float]:
        if not architectures:
            return []
        states = [self.space.indices(architecture) for architecture in architectures]
        rewards: list[float] = self.predictor(self._inputs(states)).tolist()
        return rewards

    def _inputs(self, states: Sequence[State]) -> torch.Tensor:
        """(B, 3, knobs): the previous episode's best, the best so far, and the candidate."""
        previous = self.previous.state if self.previous else self._nothing
        best = self.best.state if self.best else self._nothing
        return torch.tensor([[previous, best, state] for state in states])
