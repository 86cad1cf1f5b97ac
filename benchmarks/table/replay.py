"""A search replayed on a table of measured students: through the product's loop, in milliseconds."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

from kdnas_core.architecture import Architecture
from kdnas_core.latency.model import FAR_OVER
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.reward import kdnas_reward
from kdnas_core.search.rungs import Cost, Peer, beaten
from kdnas_core.search.space import KNOBS, SearchSpace
from kdnas_core.spec import RewardSpec

SPEEDUPS = (2.0, 3.0, 5.0, 7.0, 10.0)


@dataclass(frozen=True)
class Row:
    """A measured student.

    Attributes:
        ms: its latency.
        losses: by steps taken; empty if it is over the largest budget and was never trained.
    """

    ms: float
    losses: dict[int, float]

    @property
    def loss(self) -> float:
        """After the last step; infinite if it was never trained."""
        return self.losses[max(self.losses)] if self.losses else math.inf


@dataclass(frozen=True)
class Table:
    """All students of a grid, their teacher, and the budgets of a search, in times as fast as the teacher."""

    rows: dict[Architecture, Row]
    teacher: Architecture
    teacher_ms: float
    speedups: tuple[float, ...] = SPEEDUPS

    @cached_property
    def space(self) -> SearchSpace:
        """The grid."""
        choices = (sorted({getattr(each, knob) for each in self.rows}) for knob in KNOBS)
        space = SearchSpace(*map(tuple, choices))
        assert set(space) == set(self.rows), "the table is not a whole grid"
        return space

    @property
    def budgets(self) -> tuple[float, ...]:
        """In milliseconds, the largest first."""
        return tuple(self.teacher_ms / speedup for speedup in self.speedups)

    @property
    def costs(self) -> list[Cost]:
        """The budgets by both readings of a latency."""
        return [Cost(budget, budget / self.teacher_ms) for budget in self.budgets]

    @cached_property
    def steps(self) -> int:
        """Of a whole training."""
        return max(step for row in self.rows.values() for step in row.losses)

    @cached_property
    def best(self) -> float:
        """The value of all students."""
        return self.value(list(self.rows))

    def value(self, judged: Sequence[Architecture]) -> float:
        """The hypervolume over the budgets: the mean of one minus the loss of the best student within."""
        rows = [self.rows[each] for each in judged]
        return fmean(
            1 - min([row.loss for row in rows if row.ms <= budget], default=1.0) for budget in self.budgets
        )


@dataclass
class Replay:
    """The journal of one search on a table.

    Attributes:
        table: in the place of the trainer.
        seed: of the noise.
        noise: standard deviation of a repeated loss.
        prune: whether students are stopped at rungs, as in a search.
        episodes: outcomes so far.
        whole: students trained to the end, in the order of the search, and how many were judged by then.
        steps: taken in all.
    """

    table: Table
    seed: int
    noise: float = 0.0
    prune: bool = False
    episodes: dict[int, list[Outcome]] = field(default_factory=dict)
    whole: list[tuple[int, Architecture]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self._peers: list[Peer] = []
        self._judged = 0

    def has(self, episode: int) -> bool:
        """Whether it was begun."""
        return episode in self.episodes

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Judges all proposals by the table, in the order of a search."""
        shapes = [proposal.architecture for proposal in proposals]
        shapes.sort(key=lambda shape: shape.flops(128), reverse=episode > 1)
        before = list(self._peers)
        peers = self._peers if episode == 1 else before
        self.episodes[episode] = [self._outcome(shape, peers) for shape in shapes]

    def outcomes(self, episode: int) -> list[Outcome]:
        """The outcomes of an episode."""
        return self.episodes[episode]

    def loss_of(self, shape: Architecture, repeat: int = 0) -> float:
        """The last loss of a student as it is read, with the noise of a repeat."""
        return self.table.rows[shape].loss + self._off(shape, repeat)

    def _off(self, shape: Architecture, of: int = 0) -> float:
        """The noise of a repeat, or of the evaluation after so many steps."""
        return random.Random(f"{self.seed}/{of}/{shape.key}").gauss(0.0, self.noise)

    def _outcome(self, shape: Architecture, peers: Sequence[Peer]) -> Outcome:
        row, constants, teacher_ms = self.table.rows[shape], RewardSpec(), self.table.teacher_ms
        self._judged += 1
        budget = max(self.table.budgets)
        if row.ms > budget or not row.losses:  # or was over it when the table was made
            # what is far over is not measured in a search
            return Outcome(shape, 0.0, None, row.ms if row.ms <= FAR_OVER * budget else None)
        cost, last = Cost(row.ms, row.ms / teacher_ms), self.table.steps
        losses = {step: loss + self._off(shape, step) for step, loss in row.losses.items() if step < last}
        final = losses[last] = self.loss_of(shape)
        rungs = sorted(losses)[1:-1] if self.prune else []  # the start of a plain cut tells nothing
        for step, loss in ((rung, losses[rung]) for rung in rungs):
            if predicted := beaten(cost, step, loss, peers, self.table.costs):
                self.steps += step
                self._peers.append(Peer(cost, {at: losses[at] for at in losses if at <= step}, None))
                reward = kdnas_reward(predicted.loss, row.ms, teacher_ms, constants)
                return Outcome(shape, reward, predicted.loss, row.ms, pruned=True)
        self.steps += self.table.steps
        self._peers.append(Peer(cost, losses, final))
        self.whole.append((self._judged, shape))
        return Outcome(shape, kdnas_reward(final, row.ms, teacher_ms, constants), final, row.ms)

    def shortfalls(self, evaluations: int) -> list[float]:
        """After each judged student, the share by which the value falls short of the best of the table."""
        found = []
        for count in range(1, evaluations + 1):
            whole = [shape for at, shape in self.whole if at <= count]
            found.append(1 - self.table.value(whole) / self.table.best)
        return found


def read_table(path: Path) -> Table:
    """Reads a table, one row of which is the teacher's."""
    rows: dict[Architecture, Row] = {}
    teacher, teacher_ms = None, 0.0
    with path.open(newline="") as file:
        for each in csv.DictReader(file):
            layers, width, inner, heads = (int(each[knob]) for knob in KNOBS[:4])
            shape = Architecture(layers, width, inner, heads, each["hidden_act"])
            if each["student"] == "teacher":
                teacher, teacher_ms = shape, float(each["ms"])
                continue
            losses = {
                int(name.removeprefix("loss_")): float(value)
                for name, value in each.items()
                if name.startswith("loss_") and name != "loss_se" and value
            }
            rows[shape] = Row(float(each["ms"]), losses)
    assert teacher is not None, "the table has no row of the teacher"
    return Table(rows, teacher, teacher_ms)
