"""Samplers of Optuna as controllers, to compare with: latency and loss are the objectives of a study."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import Trial, TrialState

from kdnas_core.architecture import Architecture
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.space import SearchSpace

POPULATION = 20  # of NSGA-II
REPEATS = 4  # asked for each candidate at the most; after that it is drawn at random
WORST_LOSS = 1.0  # of a student over the budget
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "optuna-tpe": lambda seed: TPESampler(seed=seed),
    "optuna-nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
    "optuna-gp": lambda seed: GPSampler(seed=seed),
}

optuna.logging.set_verbosity(optuna.logging.ERROR)


class OptunaController:
    """Proposes what a sampler of Optuna asks for; the largest budget is a constraint.

    Args:
        space: of the search.
        sampler: one of `SAMPLERS`.
        budget_ms: the largest budget.
        seed: of the sampler.
    """

    def __init__(self, space: SearchSpace, sampler: str, budget_ms: float, seed: int) -> None:
        self.space, self.budget_ms, self.seed = space, budget_ms, seed
        self.study = optuna.create_study(sampler=SAMPLERS[sampler](seed), directions=["minimize", "minimize"])
        # choices by their place, since most are sizes in order
        self.distributions: dict[str, BaseDistribution] = {
            str(knob): IntDistribution(0, count - 1) for knob, count in enumerate(space.choices())
        }
        self.trials: dict[Architecture, Trial] = {}
        self.has_asked = False

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Asks until `count` new points of the space are named; at random if the sampler repeats itself."""
        self.has_asked = True
        before = len(self.trials)
        for _ in range(REPEATS * count):
            if len(self.trials) < before + count:
                self._ask()
        left = before + count - len(self.trials)
        for shape in self.space.sample(random.Random(f"{self.seed}/{before}"), left, self.trials):
            self._ask_for(shape)
        return list(map(Proposal, list(self.trials)[before:]))

    def _ask(self) -> None:
        """Asks for a trial, and ends it at once if it is no new point."""
        trial = self.study.ask(self.distributions)
        shape = self.space.at([trial.params[knob] for knob in self.distributions])
        if shape is None or shape in self.trials:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.trials[shape] = trial

    def _ask_for(self, shape: Architecture) -> None:
        self.study.enqueue_trial(dict(zip(self.distributions, self.space.indices(shape), strict=True)))
        self._ask()

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Tells latencies and losses; where a search is resumed, asks first what was asked then."""
        if not self.has_asked:
            self._ask_again([outcome.architecture for outcome in outcomes])
        self.has_asked = False
        for outcome in outcomes:
            trial, ms, loss = self.trials.get(outcome.architecture), outcome.ms, outcome.loss
            if trial is None:  # the search was extended, and had another space
                continue
            if ms is None or (loss is not None and not math.isfinite(loss)):
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_constraint("over the budget", ms - self.budget_ms)
            self.study.tell(trial, [ms, WORST_LOSS if loss is None else loss])

    def _ask_again(self, shapes: Sequence[Architecture]) -> None:
        """Asks as in an earlier process; for what another controller proposed, if one did before."""
        for proposal in self.ask(0, len(shapes)):
            if proposal.architecture not in shapes:
                self.study.tell(self.trials.pop(proposal.architecture), state=TrialState.FAIL)
        for shape in shapes:
            if shape in self.space and shape not in self.trials:
                self._ask_for(shape)
