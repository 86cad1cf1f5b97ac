"""Why each layer of a student is as good as it is: its width, its training, its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median

import numpy as np

from kdnas_core.dashboard.model import layer_terms
from kdnas_core.models.mapping import HIDDEN
from kdnas_core.runs.records import LayerLoss, TeacherLayerFacts

FOLLOWS = 0.3  # the most error of a layer that follows its teacher
BY_WIDTH = 0.5  # the least share of an error that is out of reach, if width is its reason
NEARER = 0.03  # in CKA, by which another teacher layer is clearly more like a student's layer


@dataclass(frozen=True)
class Standing:
    """One layer of a student, with errors in units of the variance of its teacher layers.

    Attributes:
        layer: of the student, from 1.
        teacher: the teacher layers that it learns from, or is compared with.
        floor: the least error that its width allows; None if not known.
        start: before the first step.
        final: after the last.
        is_learnt: whether it learns from those teacher layers; else it is compared with them by a probe.
    """

    layer: int
    teacher: tuple[int, ...]
    floor: float | None
    start: float
    final: float
    is_learnt: bool = True

    @property
    def verdict(self) -> str:
        """ "follows", "width" or "training": whether it is good, and what it is limited by if not."""
        if self.final <= FOLLOWS:
            return "follows"
        return "width" if self.floor is not None and self.floor >= BY_WIDTH * self.final else "training"


def standings(
    losses: Sequence[LayerLoss], depth: int, width: int, teacher: TeacherLayerFacts | None
) -> list[Standing]:
    """Returns how each layer of a student stands, by the errors of its hidden states.

    Args:
        losses: of all evaluations and terms; of hidden states by a probe, if there are such.
        depth: M, the student's layers.
        width: the student's.
        teacher: its layers; None if not known.
    """
    rows = [loss for loss in layer_terms.of_states(losses) if 1 <= loss.layer <= depth]
    if not rows:
        return []
    first, last = min(row.step for row in rows), max(row.step for row in rows)
    found = []
    for layer in sorted({row.layer for row in rows}):
        of = [row for row in rows if row.layer == layer]
        targets = tuple(sorted({row.teacher_layer for row in of}))
        start, final = ([row.loss for row in of if row.step == step] for step in (first, last))
        if not final or not start or not all(map(math.isfinite, (*start, *final))):
            continue
        floor = _floor(targets, width, teacher)
        found.append(Standing(layer, targets, floor, fmean(start), fmean(final), of[0].term == HIDDEN))
    return found


def _floor(targets: Sequence[int], width: int, teacher: TeacherLayerFacts | None) -> float | None:
    if teacher is None or any(target >= len(teacher.floors) for target in targets):
        return None
    floors = [teacher.floors[target] for target in targets]
    found = fmean(of[min(width, len(of)) - 1] for of in floors)
    return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Profile:
    """The errors of another student's layers, to stand beside those of a student.

    Attributes:
        name: in words.
        errors: by layer, from 1.
        depth: its number of layers.
    """

    name: str
    errors: Mapping[int, float]
    depth: int

    def at(self, layer: int, depth: int) -> float:
        """Returns its error at the relative depth of a layer of a student with that many layers.

        Between its own layers it is interpolated; above its first layer it is that layer's.
        """
        own = [layer for layer, error in sorted(self.errors.items()) if math.isfinite(error)]
        if not own:
            return math.nan
        places = [each / self.depth for each in own]
        return float(np.interp(layer / depth, places, [self.errors[each] for each in own]))


def median_of(profiles: Sequence[Profile], depth: int) -> Profile:
    """Returns the median of several at each layer of a student with that many layers."""
    errors = {}
    for layer in range(1, depth + 1):
        known = [error for error in (each.at(layer, depth) for each in profiles) if math.isfinite(error)]
        errors[layer] = median(known) if known else math.nan
    return Profile("the frontier's median", errors, depth)


def told(rows: Sequence[Standing], width: int) -> str:
    """Says in words what the layers' errors show, for example "Layers 1 to 4 follow the teacher (...)"."""
    parts = []
    for (verdict, _), group in groupby(enumerate(rows), key=lambda each: _run(*each)):
        some = [row for _, row in group]
        several, names = len(some) > 1, _names(some)
        error = fmean(row.final for row in some)
        if verdict == "follows":
            parts.append(f"{names} {'follow' if several else 'follows'} the teacher (error {error:.2f})")
            continue
        floors = [row.floor for row in some if row.floor is not None]
        reach = f", {fmean(floors):.2f} of it beyond width {width}" if floors else ""
        have, are, their = ("have", "are", "their") if several else ("has", "is", "its")
        reason = f"{have} more to learn than lies beyond {their} width"
        if verdict == "width":
            reason = f"{are} limited by width more than by training"
        if not floors:
            reason = f"{have} yet to learn"
        parts.append(f"{names} {reason} (error {error:.2f}{reach})")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _run(place: int, row: Standing) -> tuple[str, int]:
    """Equal for neighbouring layers of one verdict: layers that no loss is known of come in between."""
    return row.verdict, row.layer - place


def _names(rows: Sequence[Standing]) -> str:
    first, last = rows[0].layer, rows[-1].layer
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def nearer(
    rows: Sequence[Standing], similarity: Sequence[Sequence[float]]
) -> list[tuple[int, int, float, float]]:
    """Returns the layers that are clearly more like another teacher layer than like their own.

    Those that learn from the teacher's last layer are left out: it is what a student is for.

    Args:
        rows: with the teacher layers of each.
        similarity: CKA of student layers 0..M with teacher layers 0..N.

    Returns:
        For each such layer: the layer, that teacher layer, its CKA, and the best CKA of its own.
    """
    found = []
    for row in rows:
        if row.layer >= len(similarity) or not similarity[row.layer]:
            continue
        alike = similarity[row.layer]
        if len(alike) - 1 in row.teacher:
            continue
        best = max(range(len(alike)), key=lambda layer: alike[layer])
        own = max((alike[target] for target in row.teacher if target < len(alike)), default=math.nan)
        if best not in row.teacher and alike[best] > own + NEARER:
            found.append((row.layer, best, alike[best], own))
    return found
