"""When a search may end: what another episode is expected to bring."""

from __future__ import annotations

from dataclasses import dataclass

NO_GAIN = 0.01  # of a loss: less is no gain


@dataclass(frozen=True)
class Outlook:
    """What is expected after an episode.

    Attributes:
        episode: the last one.
        gain: by what share another episode is expected to lower the best loss within a budget, the largest
            share over the budgets; within one that nothing is within yet, the probability that something is.
            None if no loss is known.
        chances: for each budget, the largest first, the probability that the loss of one of the most
            promising of 2,000 architectures not judged yet is lower than the best by `NO_GAIN` of it; None
            within a budget that nothing is within.
    """

    episode: int
    gain: float | None
    chances: tuple[float | None, ...]

    @property
    def no_gain(self) -> bool:
        """Whether another episode is not worth its time."""
        return self.gain is not None and self.gain < NO_GAIN
