"""The episode loop: ask a controller for candidates, have each judged, tell it their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kdnas_core.architecture import Architecture


@dataclass(frozen=True)
class Proposal:
    """A candidate as a controller proposes it; no prediction where it has not learned anything yet."""

    architecture: Architecture
    predicted_reward: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A judged candidate: reward 0 where it was over budget, None where judging it failed."""

    architecture: Architecture
    reward: float | None


class Controller(Protocol):
    """Proposes what to try next.

    All that a controller knows follows from its seed and from what it was told, in order: told the same
    again, it is the same again. That is how a search goes on after a restart.
    """

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Up to `count` architectures never told of, none twice; fewer where the space runs out."""

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in the outcomes of one whole episode."""


class Journal(Protocol):
    """Remembers a search, so that it can be ended at any moment and go on."""

    def outcomes(self, episode: int) -> list[Outcome]:
        """The outcomes of all candidates proposed in an episode, judging those that are not judged yet."""

    def has(self, episode: int) -> bool:
        """Whether the episode's candidates have been proposed."""

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Remembers the candidates of a new episode."""


def search(controller: Controller, journal: Journal, episodes: int, candidates: int) -> None:
    """Runs a search to its end, from wherever its journal is.

    Args:
        controller: fresh; it is told of every finished episode again.
        journal: of this search.
        episodes: how many, counted from 1.
        candidates: proposed in each.
    """
    for episode in range(1, episodes + 1):
        if not journal.has(episode):
            proposals = controller.ask(episode, candidates)
            if not proposals:
                return  # the whole space has been judged
            journal.begin(episode, proposals)
        controller.tell(journal.outcomes(episode))
