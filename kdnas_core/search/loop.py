"""The episode loop: asks a controller for candidates, has them judged, and tells it their rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kdnas_core.architecture import Architecture

REMEMBERED = "No step was taken: its mini-KD had been done before, in the same way, and its result was kept."


@dataclass(frozen=True)
class Proposal:
    """A candidate that a controller proposes; the prediction is None before it has learnt."""

    architecture: Architecture
    predicted_reward: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A judged candidate.

    Attributes:
        architecture: its shape.
        reward: 0 if over budget, estimated if pruned, None if it failed.
        loss: what stands on the frontier: one minus the score where the run has tasks; None if it was never
            trained; if it was pruned, the loss that its peers make likely.
        ms: its measured latency, without the machine's drift since the run began; None if it was estimated
            alone.
        pruned: whether it was stopped at a rung.
    """

    architecture: Architecture
    reward: float | None
    loss: float | None = None
    ms: float | None = None
    pruned: bool = False


class Controller(Protocol):
    """Proposes candidates.

    The state of a controller depends only on its seed and on the outcomes that it was told, in order. A
    search resumes by telling them again to a new controller.
    """

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Returns up to `count` different new architectures; fewer if the space is exhausted."""

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from the outcomes of a whole episode."""


class Journal(Protocol):
    """Stores a search, so that it can be interrupted at any moment and resumed."""

    def outcomes(self, episode: int) -> list[Outcome]:
        """Returns the outcomes of an episode's candidates; judges those that are not judged yet."""

    def has(self, episode: int) -> bool:
        """Returns whether the episode's candidates have been proposed."""

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Stores the candidates of a new episode."""


def search(
    controller: Controller,
    journal: Journal,
    episodes: int,
    candidates: int,
    beside: Sequence[Architecture] = (),
    is_over: Callable[[int, Sequence[Outcome]], bool] = lambda episode, outcomes: False,
) -> None:
    """Runs a search to its end, from where its journal ends.

    Args:
        controller: a new one; it is told every finished episode again.
        journal: of this search.
        episodes: number of episodes, counted from 1.
        candidates: proposed in each episode.
        beside: judged in the first episode too; not in the controller's space, and not told to it.
        is_over: called with the last episode and all outcomes before another is proposed, and after the last;
            returns whether to end.
    """
    added = [Proposal(architecture) for architecture in beside]
    told: list[Outcome] = []
    for episode in range(1, episodes + 1):
        if not journal.has(episode):
            proposals = controller.ask(episode, candidates)
            if not proposals:
                return  # the whole space has been judged
            journal.begin(episode, [*added, *proposals] if episode == 1 else proposals)
        outcomes = [each for each in journal.outcomes(episode) if each.architecture not in beside]
        controller.tell(outcomes)
        told += outcomes
        if not journal.has(episode + 1) and is_over(episode, told):
            return
