"""Random search: what any controller must beat with the same number of candidates."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kdnas_core.architecture import Architecture
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace


class RandomController:
    """Draws uniformly from the architectures that were not judged yet."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.seen: set[Architecture] = set()

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Up to `count` random architectures; the same for the same seed, episode and history."""
        rng = random.Random(f"{self.seed}/{episode}")
        return [Proposal(architecture) for architecture in self.space.sample(rng, count, self.seen)]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Remembers what was judged, so that it is not drawn again."""
        self.seen.update(outcome.architecture for outcome in outcomes)
