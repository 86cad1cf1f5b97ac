"""Random search, the baseline of all controllers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kdnas_core.architecture import Architecture
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace


class RandomController:
    """Draws uniformly from the architectures that are not judged yet."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.seen: set[Architecture] = set()

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Returns up to `count` random architectures, determined by seed, episode and history."""
        rng = random.Random(f"{self.seed}/{episode}")
        return [Proposal(architecture) for architecture in self.space.sample(rng, count, self.seen)]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Excludes the judged architectures from later draws."""
        self.seen.update(outcome.architecture for outcome in outcomes)
