"""Computes a run's progress, its results so far, and the best candidate within a budget."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdnas_core.runs.measured import Measured
from kdnas_core.runs.picks import picked
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.search import pareto
from kdnas_core.search.loop import REMEMBERED
from kdnas_core.search.reward import budget_ms
from kdnas_core.search.space import SearchSpace

JUDGED = ("over_budget", "pruned", "done", "failed")
Reading = Literal["p50", "p95"]
_RECENT = 20  # latest candidates, by which the time left is estimated


@dataclass(frozen=True)
class Limit:
    """A latency budget.

    Attributes:
        ms: the most milliseconds.
        reading: of a student's latency, which has to be within it.
        speedup: the least speed-up over the teacher's runs that alternated with the student's, if the budget
            is one; None otherwise.
    """

    ms: float
    reading: Reading = "p50"
    speedup: float | None = None

    def allowed(self, rows: Measured) -> NDArray[np.bool_]:
        """Returns which of some candidates are within the budget."""
        fast_enough = (rows.p95 if self.reading == "p95" else rows.p50) <= self.ms
        return fast_enough if self.speedup is None else fast_enough & (rows.speedups >= self.speedup)


@dataclass(frozen=True)
class EpisodeReward:
    """The rewards of one episode's candidates, and the best reward up to its end."""

    episode: int
    rewards: list[float]
    mean: float
    best_so_far: float


def by_state(candidates: Sequence[Candidate]) -> Mapping[str, list[Candidate]]:
    """Returns the candidates of each state, in the order given; none of a state that no candidate has."""
    found: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        found[candidate.state].append(candidate)
    return found


def judged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates that are judged: done, pruned, over budget or failed."""
    return [candidate for candidate in candidates if candidate.state in JUDGED]


def distilled(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates with a finite latency and loss, which can be compared."""
    return list(Measured.of(candidates))


def skipped(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates that were not measured, since their estimate is far over the budget."""
    return [row for row in candidates if row.state == "over_budget" and row.latency is None]


def pruned(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates that were stopped at a rung, since they would hardly be picked."""
    return [row for row in candidates if row.state == "pruned"]


def steps_saved(candidates: Sequence[Candidate]) -> float:
    """Returns the share of the steps of mini-KD that were saved by stopping candidates at rungs."""
    stopped = pruned(candidates)
    whole = [row for row in candidates if row.state == "done"]
    steps = sum(row.steps for row in (*stopped, *whole))
    return sum(row.steps - row.step for row in stopped) / steps if steps else 0.0


def speedup_of(candidate: Candidate) -> float | None:
    """Returns a candidate's speed-up over the teacher; None if it was not measured."""
    return None if candidate.latency is None else candidate.latency.speedup


def teacher_ms(run: Run) -> float | None:
    """Returns the teacher's p50 latency in this run, in ms; None until it is measured."""
    return None if run.teacher is None else run.teacher.latency.p50


def best_within(candidates: Sequence[Candidate], limit: Limit) -> Candidate | None:
    """Returns the distilled candidate to pick within the budget; None if there is none."""
    measured = Measured.of(candidates)
    return picked(measured.where(limit.allowed(measured)))[0]


def budget_of(run: Run) -> float | None:
    """Returns the run's largest budget in ms; None if it depends on a teacher that is not measured yet."""
    latency = run.spec.latency
    if latency.budget_ms is not None:
        return latency.amounts[0]
    return None if run.teacher is None else budget_ms(latency, run.teacher.latency.p50)


def own_limit(run: Run) -> Limit | None:
    """Returns the run's largest budget as it is held; None as of `budget_of`."""
    ms, latency = budget_of(run), run.spec.latency
    if ms is None:
        return None
    return Limit(ms, speedup=None if latency.budget_speedup is None else latency.amounts[0])


def planned(run: Run) -> int:
    """Returns how many candidates the run will judge: its total, or the whole space if that is smaller."""
    if run.teacher is None:
        return run.total
    return min(run.total, len(SearchSpace.from_spec(run.spec.space, run.teacher.architecture)))


def seconds_left(run: Run, candidates: Sequence[Candidate]) -> float | None:
    """Estimates the time left of the run from its latest candidates, in seconds; None if unknown."""
    # a remembered result took no step, and says nothing about those to come
    done = [row for row in judged(candidates) if REMEMBERED not in row.notes]
    if not done or run.state not in ("running", "paused", "interrupted"):
        return None
    recent = [candidate.seconds for candidate in done[-_RECENT:]]
    # no slower than the whole run's pace: the latest candidates may have waited for another search
    pace = min(sum(recent) / len(recent), run.seconds / len(done) or math.inf)
    return pace * max(0, planned(run) - len(judged(candidates)))


def best_so_far(candidates: Sequence[Candidate], most: int = 40) -> list[float]:
    """Returns one minus the least error so far, by candidates judged, at no more than so many of them."""
    best, found = math.inf, []
    for candidate in judged(candidates):
        if candidate.state == "done" and math.isfinite(candidate.point[1]):
            best = min(best, candidate.point[1])
        found.append(0.0 if math.isinf(best) else 1 - best)
    return found[:: -max(1, -(-len(found) // most))][::-1]  # with the last one


def hypervolumes(candidates: Sequence[Candidate], budget: float) -> list[tuple[int, float]]:
    """Returns (candidates judged, share of the area up to the budget and a loss of 1 that is dominated)."""
    front: list[pareto.Point] = []  # by ascending latency, and so by descending loss
    shares = []
    share = 0.0
    for order, candidate in enumerate(judged(candidates), start=1):
        if candidate.state == "done" and _joins(front, candidate.point):
            share = pareto.hypervolume(front, (budget, 1.0)) / budget
        shares.append((order, share))
    return shares


def _joins(front: list[pareto.Point], point: pareto.Point) -> bool:
    """Adds a point to a frontier, and takes off what it dominates; returns False if it is dominated."""
    place = bisect_right(front, point[0], key=lambda each: each[0])
    if not all(map(math.isfinite, point)) or (place and front[place - 1][1] <= point[1]):
        return False
    front[:] = [each for each in front if each[0] < point[0] or each[1] < point[1]]
    insort(front, point)
    return True


def episode_rewards(candidates: Sequence[Candidate]) -> list[EpisodeReward]:
    """Returns the rewards by episode; leaves out episodes without a reward."""
    rows = [row for row in candidates if row.reward is not None and math.isfinite(row.reward)]
    summaries: list[EpisodeReward] = []
    best = -math.inf
    for episode, group in groupby(sorted(rows, key=lambda row: row.episode), key=lambda row: row.episode):
        known = [(row.reward, row.state) for row in group if row.reward is not None]
        rewards = [reward for reward, _ in known]
        best = max([best, *(reward for reward, state in known if state != "pruned")])
        summaries.append(EpisodeReward(episode, rewards, sum(rewards) / len(rewards), best))
    return summaries
