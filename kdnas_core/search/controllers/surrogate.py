"""A controller with a surrogate: it proposes what is expected to improve the frontier most.

A loss model predicts the losses of architectures with the uncertainty, a latency model their latencies; both
learn from what was judged, and have a prior for the first episode. A proposal is worth the improvement of the
best loss that it is expected to bring within each budget (expected improvement, Jones et al., 1998), times
the probability that it is within; the sum over budgets is the expected gain of hypervolume under a staircase.
Within a batch, each proposal takes those before it for judged, at their predicted loss (the Kriging believer,
Ginsbourger et al., 2010).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from kdnas_core.architecture import Architecture
from kdnas_core.latency.model import LatencyModel, MeasuredLatency, fitted, fitted_roughly
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.loss_model import LEAST_LOSS, LossModel
from kdnas_core.search.space import SearchSpace
from kdnas_core.search.stopping import NO_GAIN, Outlook

POOL = 1_000  # architectures drawn to choose from, beside the neighbours of the frontier
THRESHOLDS = 8  # latencies at which the frontier is to be improved, where there is one budget
LEAST_ERROR, BY_FLOPS_ERROR = (
    0.02,
    0.5,
)  # of latencies, in logarithms: of a model at the least, and without one
P90 = 1.645  # standard deviations
PRUNED_ERROR = 0.05  # standard deviation of the logarithm of a loss that a rung makes likely
WORST_LOSS = 1.0  # within a budget that nothing is within yet
DRAWS = 256  # of the joint distribution of losses
UNSEEN, PROMISING = 2_000, 100  # architectures looked at, and for each budget taken into each draw

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What the students of a search are for, and how their latency is measured.

    Attributes:
        budgets: in milliseconds.
        teacher: its shape.
        teacher_ms: its latency.
        batch_size: of the measurements.
        sequence_length: of the measurements.
    """

    budgets: tuple[float, ...]
    teacher: Architecture
    teacher_ms: float
    batch_size: int = 1
    sequence_length: int = 128


class SurrogateController:
    """Proposes the architectures with the largest expected gain over all budgets.

    Args:
        space: of the search.
        setting: its budgets and its teacher.
        seed: of the architectures that it draws to choose from.
        earlier: outcomes of other searches whose losses compare; they are learnt from, and may be proposed.
    """

    def __init__(
        self, space: SearchSpace, setting: Setting, seed: int, earlier: Sequence[Outcome] = ()
    ) -> None:
        self.space = space
        self.earlier = [each for each in earlier if each.loss is not None and math.isfinite(each.loss)]
        self.setting = setting
        self.seed = seed
        self.outcomes: dict[Architecture, Outcome] = {}
        self._latency: LatencyModel | None = None
        self._losses = LossModel.of(space, setting.teacher)
        self._knows_losses = False
        self._is_fitted = not self.earlier

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Returns up to `count` new architectures, those with the largest expected gain."""
        self._fit()
        rng = random.Random(f"{self.seed}/{episode}")
        pool = self._pool(rng, count)
        if not pool:
            return []
        ms = np.array([self._ms(architecture) for architecture in pool])
        return [Proposal(pool[index]) for index in self._gaining(pool, ms, count)]

    def outlook(self, episode: int, count: int) -> Outlook:
        """Returns what another episode is expected to bring, and what the space may hold.

        Losses are drawn jointly from the loss model, those of the best with them, since what was measured has
        noise; latencies that were not measured are drawn too.

        Args:
            episode: the last one.
            count: candidates of an episode.
        """
        self._fit()
        budgets = self.setting.budgets
        known = [self._best_within(budget) for budget in budgets]
        if not self._knows_losses:
            return Outlook(episode, None, (None,) * len(budgets))
        rng = random.Random(f"{self.seed}/{episode + 1}")
        asked = self._pool(rng, count)
        ms = np.array([self._ms(architecture) for architecture in asked])
        proposed = [asked[index] for index in self._gaining(asked, ms, count)] if asked else []
        gains = [gain for gain, _ in self._better(proposed, known, episode)]
        promising = self._promising(rng, asked, known)
        chances = [chance for _, chance in self._better(promising, known, episode)]
        whole = zip(chances, known, strict=True)
        return Outlook(episode, max(gains), tuple(None if best is None else chance for chance, best in whole))

    def _promising(
        self, rng: random.Random, pool: Sequence[Architecture], known: Sequence[Outcome | None]
    ) -> list[Architecture]:
        """Of many architectures that were not judged, those most likely to beat the best within a budget."""
        seen = {*self.outcomes, *pool}
        many = [*pool, *self.space.sample(rng, UNSEEN, seen)]
        if not many:
            return []
        mean, deviation = self._losses.predict_each(many)
        ms = np.log([self._ms(architecture) for architecture in many])
        chosen: dict[int, None] = {}
        for budget, best in zip(self.setting.budgets, known, strict=True):
            if best is not None:
                level = math.log(max(_loss(best), LEAST_LOSS))
                within = norm.cdf((math.log(budget) - ms) / self._latency_error)
                likely = norm.cdf((level - mean) / deviation) * within
                chosen |= dict.fromkeys(np.argsort(-likely, kind="stable")[:PROMISING].tolist())
        return [many[index] for index in chosen]

    def _better(
        self, architectures: Sequence[Architecture], known: Sequence[Outcome | None], episode: int
    ) -> list[tuple[float, float]]:
        """For each budget by what share architectures lower the best loss, and how likely by `NO_GAIN`.

        Within a budget that nothing is within yet, both are the probability that one of them is.
        """
        budgets = self.setting.budgets
        if not architectures:
            return [(0.0, 0.0)] * len(budgets)
        best = [each.architecture for each in known if each is not None]
        mean, covariance = self._losses.predict([*architectures, *best])
        rng = np.random.default_rng([self.seed, episode])
        losses = np.exp(rng.multivariate_normal(mean, covariance, DRAWS, method="eigh", check_valid="ignore"))
        count, place = len(architectures), len(architectures)
        off = np.exp(self._latency_error * rng.standard_normal((DRAWS, count)))
        ms = np.array([self._ms(architecture) for architecture in architectures]) * off
        found = []
        for budget, outcome in zip(budgets, known, strict=True):
            within = ms <= budget
            if outcome is None:
                share = float(within.any(1).mean())
                found.append((share, share))
                continue
            least = np.where(within, losses[:, :count], np.inf).min(1)
            fall = np.maximum(0.0, 1 - least / losses[:, place])
            found.append((float(fall.mean()), float((fall > NO_GAIN).mean())))
            place += 1
        return found

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps the outcomes; both models are fitted on all of them when they are needed next."""
        self.outcomes |= {outcome.architecture: outcome for outcome in outcomes}
        self._is_fitted = False

    def _fit(self) -> None:
        if self._is_fitted:
            return
        self._is_fitted, setting = True, self.setting
        known = [(setting.teacher, setting.teacher_ms)] + [
            (each.architecture, each.ms)
            for each in (*self.earlier, *self.outcomes.values())
            if each.ms is not None and math.isfinite(each.ms)
        ]
        readings = [
            MeasuredLatency(architecture, setting.batch_size, setting.sequence_length, ms)
            for architecture, ms in known
        ]
        models = [model for model in (fitted(readings), fitted_roughly(readings)) if model is not None]
        self._latency = min(models, key=lambda model: model.p90_error, default=None)
        judged = [*(each for each in self.earlier if each.architecture not in self.outcomes), *self._judged()]
        if judged:
            self._knows_losses = True
            self._losses = self._losses.fitted(
                [each.architecture for each in judged],
                [_loss(each) for each in judged],
                [PRUNED_ERROR if each.pruned else 0.0 for each in judged],
            )

    def _judged(self) -> list[Outcome]:
        return [each for each in self.outcomes.values() if each.loss is not None and math.isfinite(each.loss)]

    def _pool(self, rng: random.Random, count: int) -> list[Architecture]:
        """New architectures: random ones, and those that differ from a point of the frontier in one knob."""
        near = [
            neighbour
            for best in self._best()
            if best in self.space  # a search that was extended may have had another
            for neighbour in self.space.neighbours(best)
            if neighbour not in self.outcomes
        ]
        drawn = self.space.sample(rng, max(POOL, count), {*self.outcomes, *near})
        return [*dict.fromkeys(near), *drawn]

    def _best(self) -> list[Architecture]:
        """The best architecture within each threshold."""
        found: dict[Architecture, None] = {}
        for threshold in self._thresholds():
            if best := self._best_within(threshold):
                found[best.architecture] = None
        return list(found)

    def _best_within(self, threshold: float) -> Outcome | None:
        """The outcome with the least loss within a latency, of those trained to the end."""
        within = [each for each in self._judged() if not each.pruned and self._known_ms(each) <= threshold]
        return min(within, key=_loss, default=None)

    def _thresholds(self) -> Numbers:
        """The latencies within which the best loss is to be improved: the budgets; of one, those up to it."""
        budgets = self.setting.budgets
        if len(budgets) > 1:
            return np.array(sorted(budgets))
        fastest = min(self._ms(self.space.smallest()), budgets[0] / 2)
        return np.geomspace(fastest, budgets[0], THRESHOLDS + 1)[1:]

    def _ms(self, architecture: Architecture) -> float:
        """The estimated latency: by the model, else in proportion to the teacher's multiply-adds."""
        setting = self.setting
        if self._latency is not None:
            return self._latency.estimate(architecture, setting.batch_size, setting.sequence_length)
        share = architecture.flops(setting.sequence_length) / setting.teacher.flops(setting.sequence_length)
        return setting.teacher_ms * share

    @property
    def _latency_error(self) -> float:
        """The standard deviation of the logarithm of an estimated latency."""
        model = self._latency
        return BY_FLOPS_ERROR if model is None else max(LEAST_ERROR, model.p90_error / P90)

    def _known_ms(self, outcome: Outcome) -> float:
        return self._ms(outcome.architecture) if outcome.ms is None else outcome.ms

    def _gaining(self, pool: Sequence[Architecture], ms: Numbers, count: int) -> list[int]:
        """The architectures with the largest expected gain, one after another; without any, the fastest."""
        mean, covariance = self._losses.predict(pool)
        thresholds = self._thresholds()
        best = np.array([self._best_loss(threshold) for threshold in thresholds])
        chosen: list[int] = []
        while len(chosen) < min(count, len(pool)):
            gains = expected_gain(mean, covariance.diagonal(), ms, thresholds, best, self._latency_error)
            gains[chosen] = -1.0
            index = int(np.lexsort((-ms, gains))[-1])
            chosen.append(index)
            # as if it had been judged and had its predicted loss
            best = np.where(ms[index] <= thresholds, np.minimum(best, np.exp(mean[index])), best)
            column = covariance[:, index].copy()
            covariance -= np.outer(column, column) / max(float(column[index]), 1e-12)
        return chosen

    def _best_loss(self, threshold: float) -> float:
        best = self._best_within(threshold)
        return WORST_LOSS if best is None else _loss(best)


def expected_gain(
    mean: Numbers, variance: Numbers, ms: Numbers, thresholds: Numbers, best: Numbers, latency_error: float
) -> Numbers:
    """Computes by how much the best losses are expected to improve, summed over thresholds.

    Args:
        mean: (n,) of the logarithm of each loss.
        variance: (n,) of it.
        ms: (n,) estimated latencies; their errors are log-normal.
        thresholds: (m,) latencies.
        best: (m,) the least loss within each.
        latency_error: standard deviation of the logarithm of each latency.

    Returns:
        (n,) gains. Of a log-normal loss y, E[max(0, b - y)] is b P(y < b) - E[y; y < b], a put's price in
        closed form.
    """
    deviation = np.sqrt(np.maximum(variance, 1e-12))[:, None]
    mean, level = mean[:, None], np.log(np.maximum(best, LEAST_LOSS))[None]
    z = (level - mean) / deviation
    expected = np.exp(mean + deviation**2 / 2) * norm.cdf(z - deviation)
    improvement = np.maximum(np.exp(level) * norm.cdf(z) - expected, 0.0)
    within = norm.cdf((np.log(thresholds)[None] - np.log(ms)[:, None]) / latency_error)
    gains: Numbers = (improvement * within).sum(1)
    return gains


def _loss(outcome: Outcome) -> float:
    assert outcome.loss is not None
    return outcome.loss
