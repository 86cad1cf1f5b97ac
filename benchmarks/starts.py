"""Which start of a student reaches a given held-out loss soonest: random, or cut out of the teacher?

And out of which of its layers: those that matter most, or those that a rule names. Run it with
`python -m benchmarks.starts`. Same teacher, text, steps and batches for all starts, in turns. The given loss
is what the worst start of its kind has reached at its end: random, and the worst of the cuts.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass

from benchmarks.rows import texts_of
from kdnas_core.architecture import Architecture
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import HeldOut, ProxySet, Watcher, distil
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import teacher_targets
from kdnas_core.spec import ObjectiveSpec, ProxySpec

SHAPES = (Architecture(2, 96, 384, 3), Architecture(3, 192, 768, 6), Architecture(4, 288, 768, 12))
STARTS = {
    "random": ObjectiveSpec(recipe="kdnas", start="random"),
    "importance": ObjectiveSpec(recipe="kdnas"),
    "uniform": ObjectiveSpec(recipe="kdnas", start_layers="uniform"),
    "first": ObjectiveSpec(recipe="kdnas", start_layers="bottom"),
    "last": ObjectiveSpec(recipe="kdnas", start_layers="top"),
}
PROXY = ProxySpec(sentences=2_000, held_out=200, steps=120)


@dataclass(frozen=True)
class Row:
    """One student's held-out losses by step, from before the first step to after the last."""

    shape: str
    start: str
    seconds: float
    losses: dict[int, float]

    def steps_to(self, loss: float) -> float:
        """The first evaluated step at which the loss was no higher; infinity where it never was."""
        return min((step for step, value in self.losses.items() if value <= loss), default=float("inf"))


def main() -> None:
    """Prints held-out losses by start and step, and how soon each start is where random ends."""
    teacher = load_teacher("packaged")
    data, importance = _proxy_set(teacher)
    rows = []
    for shape in SHAPES:
        for start, spec in STARTS.items():
            row = _one(teacher, shape, start, spec, data, importance)
            losses = "  ".join(f"{loss:.3f}" for loss in row.losses.values())
            print(f"{shape.key:<24}{start:<9}{row.seconds:6.1f} s  {losses}", flush=True)
            rows.append(row)
    print(json.dumps({"steps": PROXY.steps, **_summary(rows), "rows": [asdict(row) for row in rows]}))


def _summary(rows: list[Row]) -> dict[str, object]:
    """By start: medians over shapes of the last loss over random's, and of steps to random's last loss."""
    random = {row.shape: row.losses[PROXY.steps] for row in rows if row.start == "random"}
    worst_cut = {
        shape: max(row.losses[PROXY.steps] for row in rows if row.shape == shape and row.start != "random")
        for shape in random
    }
    by_start = {start: [row for row in rows if row.start == start] for start in STARTS}
    return {
        "last_loss_over_random": {
            start: statistics.median(row.losses[PROXY.steps] / random[row.shape] for row in of_it)
            for start, of_it in by_start.items()
        },
        "steps_to_random_last_loss": _steps_to(random, by_start),
        "steps_to_worst_cut_last_loss": _steps_to(worst_cut, by_start),
    }


def _steps_to(losses: dict[str, float], by_start: dict[str, list[Row]]) -> dict[str, float | None]:
    """By start, the median of the steps to each shape's loss; None where it was not reached."""
    medians = {
        start: statistics.median(row.steps_to(losses[row.shape]) for row in of_it)
        for start, of_it in by_start.items()
    }
    return {start: steps if math.isfinite(steps) else None for start, steps in medians.items()}


def _proxy_set(teacher: Teacher) -> tuple[ProxySet, Importance]:
    held_out, learnt = texts_of("packaged", PROXY, teacher)
    train, judged = (
        teacher_targets(teacher, part, PROXY.sequence_length, autocast_dtype(), cache_folder())
        for part in (learnt, held_out)
    )
    importance = importance_of(teacher, learnt, "mean", cache_folder())
    return ProxySet.of(train, judged, teacher.model.config), importance


def _one(
    teacher: Teacher,
    shape: Architecture,
    start: str,
    spec: ObjectiveSpec,
    data: ProxySet,
    importance: Importance,
) -> Row:
    results: list[HeldOut] = []
    watcher = Watcher(step=lambda step: None, held_out=results.append)
    given = TeacherProfile(teacher.architecture, predicts_words=False, hides_words=True)
    autocast = autocast_dtype()
    with exclusive():
        began = time.perf_counter()
        begun = begin(teacher, shape, spec, given, data, None, 0, importance)
        distil(begun.student, begun.objective, data, PROXY, 0, autocast, watcher)
        seconds = time.perf_counter() - began
    return Row(shape.key, start, seconds, {result.step: result.loss for result in results})


if __name__ == "__main__":
    main()
