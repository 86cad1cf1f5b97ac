"""The loss terms of a student: their names, losses and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from kdnas_core.dashboard import wording
from kdnas_core.models.mapping import HIDDEN, PROBE, mean_over_layers
from kdnas_core.runs.records import Candidate, LayerLoss, Run

# a loss that begins near 0, such as that of the embeddings of an exact cut, can rise a millionfold
MOST_CHANGE = 9.0
# normalised by the variance of the target: 1 is no better than predicting its mean
_NORMALISED = ("yardstick", "hidden", "hidden_probe", "embedding")


@dataclass(frozen=True)
class Depths:
    """The numbers of layers of student and teacher."""

    student: int
    teacher: int

    @classmethod
    def of(cls, run: Run, candidate: Candidate) -> Depths:
        """Returns the depths of a candidate and its teacher; 0 for a teacher that is not known yet."""
        teacher = run.teacher.architecture.layers if run.teacher else 0
        return cls(candidate.architecture.layers, teacher)

    def names(self, layer: int, teacher_layer: int) -> tuple[str, str]:
        """Formats a student layer and the teacher layer that it learns from."""
        return wording.layer(layer, self.student), wording.layer(teacher_layer, self.teacher)

    def are_outer(self, layer: int, teacher_layer: int) -> bool:
        """Returns whether both are embedding or prediction layers, which have no layer mapping."""
        return not (1 <= layer <= self.student) and not (1 <= teacher_layer <= self.teacher)


@dataclass(frozen=True)
class TermLoss:
    """A term's held-out loss, the mean over its layers, at its first and, if any, last evaluation."""

    term: str
    first: float
    last: float | None

    @property
    def change(self) -> float | None:
        """The change as a share of the first loss, negative for a decrease; None if it is not meaningful."""
        if self.last is None or not self.first or not math.isfinite(self.last / self.first):
            return None
        change = self.last / self.first - 1
        return change if change <= MOST_CHANGE else None


def present(losses: Sequence[LayerLoss]) -> list[str]:
    """Returns the terms that have losses, in the order of `wording.TERMS`."""
    order = list(wording.TERMS)
    found = {loss.term for loss in losses}
    return sorted(
        found, key=lambda term: (order.index(kind(term)) if kind(term) in order else len(order), term)
    )


def of_term(losses: Sequence[LayerLoss], term: str) -> list[LayerLoss]:
    """Returns the losses of one term."""
    return [loss for loss in losses if loss.term == term]


def by_layer(losses: Mapping[int, Sequence[LayerLoss]]) -> dict[int, dict[int, float]]:
    """Returns the error of each candidate's hidden states by layer, in units of the teacher's variance.

    Of candidates whose recipe does not train every layer it is that of a probe; of several teacher layers,
    the mean.
    """
    return {candidate: _of_layers(of_states(rows)) for candidate, rows in losses.items()}


def of_states(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Returns the losses of hidden states: by a probe if there is one, else of those that are learnt."""
    return of_term(losses, PROBE) or of_term(losses, HIDDEN)


def states_term(losses: Sequence[LayerLoss]) -> str | None:
    """Returns the term of `of_states`; None if there is none."""
    rows = of_states(losses)
    return rows[0].term if rows else None


def _of_layers(losses: Sequence[LayerLoss]) -> dict[int, float]:
    return {
        layer: fmean(loss.loss for loss in losses if loss.layer == layer)
        for layer in sorted({loss.layer for loss in losses})
    }


def kind(term: str) -> str:
    """Returns the kind of a term: "hidden" for "hidden-2", the second of its kind."""
    return wording.numbered(term)[0]


def is_normalised(term: str) -> bool:
    """Returns whether a term's loss is normalised: a student that predicts the mean has a loss of 1."""
    return kind(term) in _NORMALISED


def summary(losses: Sequence[LayerLoss]) -> list[TermLoss]:
    """Returns the first and the last loss of each term."""
    return [_summed(term, of_term(losses, term)) for term in present(losses)]


def by_step(losses: Sequence[LayerLoss], term: str) -> dict[int, float]:
    """Returns a term's mean over its layers by steps, in rising order."""
    rows = of_term(losses, term)
    return {step: _mean([row for row in rows if row.step == step]) for step in sorted({r.step for r in rows})}


def _summed(term: str, losses: Sequence[LayerLoss]) -> TermLoss:
    steps = sorted({loss.step for loss in losses})
    means = [_mean([loss for loss in losses if loss.step == step]) for step in (steps[0], steps[-1])]
    return TermLoss(term, means[0], means[1] if len(steps) > 1 else None)


def _mean(losses: Sequence[LayerLoss]) -> float:
    """The mean over layers, as in the reward."""
    return mean_over_layers({(loss.layer, loss.teacher_layer): loss.loss for loss in losses})
