"""When a search may end: what another episode is expected to bring."""

from __future__ import annotations

from dataclasses import dataclass, replace

NO_GAIN = 0.01  # of a loss: less is no gain
LITTLE = 0.003  # of a loss: the expected gain, below which none is expected; on average over much and nothing


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
        gain_before: `gain` after the episode before; None if it is not known.
    """

    episode: int
    gain: float | None
    chances: tuple[float | None, ...]
    gain_before: float | None = None

    @property
    def no_gain(self) -> bool:
        """Whether another episode is not worth its time, as it was after the episode before too."""
        gains = self.gain, self.gain_before
        return all(gain is not None and gain < LITTLE for gain in gains)

    def after(self, before: Outlook | None) -> Outlook:
        """Returns this outlook with the gain that was expected after the episode before.

        Args:
            before: the last outlook; of this very episode, where a search is resumed.
        """
        if before is None or before.episode not in (self.episode - 1, self.episode):
            return self
        return replace(
            self, gain_before=before.gain_before if before.episode == self.episode else before.gain
        )
