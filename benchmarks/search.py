"""How many students must a controller have judged to know the best ones? Searches replayed on a table.

Run it with `python -m benchmarks.search TABLE.csv --seeds 20`. The table is a CSV with a row for each
architecture of a whole grid: the five knobs, `ms`, `loss`, `loss_se`; the teacher's row has no loss. A
search runs through the product's own loop, with the table in the place of the trainer; each reading of a
loss has noise of the size of its standard error. There are five budgets at once: a half, a third, a fifth, a
seventh and a tenth of the teacher's latency. The value of a search is the mean over budgets of one minus the
true loss of the best student within. Printed are by how much it falls short of the best of the table, in per
cent, after so many judged students, and how many were needed to come within one per cent. Optuna's samplers
take part if it is installed; it is no dependency.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.controllers.surrogate import Setting, SurrogateController
from kdnas_core.search.loop import Controller, Outcome, Proposal, search
from kdnas_core.search.reward import kdnas_reward
from kdnas_core.search.space import KNOBS, SearchSpace
from kdnas_core.spec import RewardSpec, SearchSpec

SPEEDUPS = (2.0, 3.0, 5.0, 7.0, 10.0)
SHOWN = (5, 10, 15, 20, 30, 45, 60)
NEAR = 0.01  # of the best


@dataclass(frozen=True)
class Row:
    """A measured student: latency in ms, loss, and the loss's standard error."""

    ms: float
    loss: float
    error: float


@dataclass(frozen=True)
class Table:
    """All students of a grid, and their teacher."""

    rows: dict[Architecture, Row]
    teacher: Architecture
    teacher_ms: float

    @property
    def space(self) -> SearchSpace:
        """The grid."""
        choices = (sorted({getattr(each, knob) for each in self.rows}) for knob in KNOBS)
        space = SearchSpace(*map(tuple, choices))
        assert set(space) == set(self.rows), "the table is not a whole grid"
        return space

    @property
    def budgets(self) -> tuple[float, ...]:
        """In milliseconds, the largest first."""
        return tuple(self.teacher_ms / speedup for speedup in SPEEDUPS)

    def value(self, judged: Sequence[Architecture]) -> float:
        """The mean over budgets of one minus the loss of the best student within."""
        rows = [self.rows[each] for each in judged]
        return fmean(
            1 - min([row.loss for row in rows if row.ms <= budget], default=1.0) for budget in self.budgets
        )


@dataclass
class Replay:
    """The journal of one search on a table."""

    table: Table
    seed: int
    episodes: dict[int, list[Outcome]] = field(default_factory=dict)

    def has(self, episode: int) -> bool:
        """Whether it was begun."""
        return episode in self.episodes

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Judges all proposals by the table."""
        self.episodes[episode] = [self._judged(proposal.architecture) for proposal in proposals]

    def outcomes(self, episode: int) -> list[Outcome]:
        """The outcomes of an episode."""
        return self.episodes[episode]

    def _judged(self, shape: Architecture) -> Outcome:
        row = self.table.rows[shape]
        if row.ms > max(self.table.budgets):
            return Outcome(shape, 0.0, None, row.ms)
        loss = max(0.0, random.Random(f"{self.seed}/{shape.key}").gauss(row.loss, row.error))
        return Outcome(shape, kdnas_reward(loss, row.ms, self.table.teacher_ms, RewardSpec()), loss, row.ms)

    @property
    def shortfalls(self) -> list[float]:
        """After each judged student, the share by which the value falls short of the best of the table."""
        judged = [outcome.architecture for episode in self.episodes.values() for outcome in episode]
        best = self.table.value(list(self.table.rows))
        return [1 - self.table.value(judged[:count]) / best for count in range(1, len(judged) + 1)]


Make = Callable[[Table, int], Controller]


class OptunaController:
    """A sampler of Optuna by ask and tell: latency and loss are two objectives, the budget a constraint."""

    def __init__(self, table: Table, sampler: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

        samplers = optuna.samplers
        made = {
            "tpe": lambda: samplers.TPESampler(seed=seed),
            "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=20),
            "gp": lambda: samplers.GPSampler(seed=seed),
        }
        self.table, space = table, table.space
        self.space = space
        self.study = optuna.create_study(sampler=made[sampler](), directions=["minimize", "minimize"])
        # sizes in order, so that a sampler may know that they are
        self.distributions: dict[str, Any] = {
            knob: optuna.distributions.IntDistribution(0, len(getattr(space, knob)) - 1) for knob in KNOBS
        }
        self.asked: dict[Architecture, Any] = {}

    def ask(self, episode: int, count: int) -> list[Proposal]:
        """Asks until `count` new points of the grid are named; repeats are told what is known."""
        found: list[Proposal] = []
        for _ in range(20 * count):
            trial = self.study.ask(self.distributions)
            shape_of = {knob: getattr(self.space, knob)[trial.params[knob]] for knob in KNOBS}
            if shape_of["hidden_size"] % shape_of["attention_heads"]:
                self.study.tell(trial, state=_failed())
                continue
            shape = Architecture(**shape_of)
            if shape in self.asked:
                self.study.tell(trial, state=_failed())
                continue
            self.asked[shape] = trial
            found.append(Proposal(shape))
            if len(found) == count:
                break
        return found

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Tells latency and loss; of a student over the budget the worst loss, and that it is infeasible."""
        for outcome in outcomes:
            trial = self.asked[outcome.architecture]
            assert outcome.ms is not None
            trial.set_constraint("over the budget", outcome.ms - max(self.table.budgets))
            self.study.tell(trial, [outcome.ms, 1.0 if outcome.loss is None else outcome.loss])


def _failed() -> Any:
    import optuna

    return optuna.trial.TrialState.FAIL


CONTROLLERS: dict[str, Make] = {
    "surrogate": lambda table, seed: SurrogateController(
        table.space, Setting(table.budgets, table.teacher, table.teacher_ms), seed
    ),
    "random": lambda table, seed: RandomController(table.space, seed),
    "lstm": lambda table, seed: LstmController(
        table.space, SearchSpec(episodes=12, candidates=5, epsilon_decay=0.08), seed
    ),
    "optuna tpe": lambda table, seed: OptunaController(table, "tpe", seed),
    "optuna nsga2": lambda table, seed: OptunaController(table, "nsga2", seed),
    "optuna gp": lambda table, seed: OptunaController(table, "gp", seed),
}


def main() -> None:
    """Prints a row for each controller, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(CONTROLLERS), default=list(CONTROLLERS))
    given = parser.parse_args()
    table = read_table(given.table)
    print(f"{len(table.rows)} students; short of the best, in per cent, after so many (median of seeds)")
    print(f"{'controller':<14}" + "".join(f"{count:>8}" for count in SHOWN) + f"{'within 1 %':>12}{'s':>7}")
    summary = {}
    for name in given.only:
        began = time.perf_counter()
        try:
            curves = [
                _curve(table, CONTROLLERS[name], seed, given.evaluations, given.batch)
                for seed in range(given.seeds)
            ]
        except ImportError as missing:
            print(f"{name:<14} left out: {missing}")
            continue
        summary[name] = _summary(curves)
        row = summary[name]
        cells = "".join(f"{100 * value:>8.2f}" for value in row["shortfall"].values())
        seconds = (time.perf_counter() - began) / given.seeds
        needed = "more" if row["needed"] is None else f"{row['needed']:.0f}"
        print(f"{name:<14}{cells}{needed:>12}{seconds:>7.1f}", flush=True)
    print(json.dumps({"seeds": given.seeds, "students": len(table.rows), "controllers": summary}))


def _curve(table: Table, make: Make, seed: int, evaluations: int, batch: int) -> list[float]:
    replay = Replay(table, seed)
    search(make(table, seed), replay, evaluations // batch, batch)
    return replay.shortfalls


def _summary(curves: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The median over seeds after some numbers of students, and of the number that were needed."""
    needed = [
        next((count for count, short in enumerate(curve, 1) if short <= NEAR), None) for curve in curves
    ]
    known = [count for count in needed if count is not None]
    return {
        "shortfall": {
            count: median(curve[min(count, len(curve)) - 1] for curve in curves) for count in SHOWN
        },
        # of more than half
        "needed": median([*known, *[float("inf")] * (len(curves) - len(known))])
        if 2 * len(known) > len(curves)
        else None,
        "never": len(curves) - len(known),
    }


def read_table(path: Path) -> Table:
    """Reads a table; the row without a loss is the teacher's."""
    rows: dict[Architecture, Row] = {}
    teacher, teacher_ms = None, 0.0
    with path.open(newline="") as file:
        for each in csv.DictReader(file):
            layers, width, inner, heads = (int(each[knob]) for knob in KNOBS[:4])
            shape = Architecture(layers, width, inner, heads, each["hidden_act"])
            if not each["loss"]:
                teacher, teacher_ms = shape, float(each["ms"])
                continue
            rows[shape] = Row(float(each["ms"]), float(each["loss"]), float(each["loss_se"]))
    assert teacher is not None, "the table has no row of the teacher"
    return Table(rows, teacher, teacher_ms)


if __name__ == "__main__":
    main()
