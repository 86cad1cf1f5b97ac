"""A student's held-out loss after each number of steps, from its losses by layer and term."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kdnas_core.models.mapping import judging_term, mean_over_layers
from kdnas_core.runs.records import LayerLoss


def losses_by_step(rows: Sequence[LayerLoss]) -> dict[int, float]:
    """Returns L of the reward by steps, in rising order; empty if no term is what students are judged by."""
    name = judging_term({row.term for row in rows})
    looks: defaultdict[int, dict[tuple[int, int], float]] = defaultdict(dict)
    for row in rows:
        if row.term == name:
            looks[row.step][row.layer, row.teacher_layer] = row.loss
    return {step: mean_over_layers(places) for step, places in sorted(looks.items())}
