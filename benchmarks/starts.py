"""Which start of a student reaches a low held-out loss soonest: random, or cut out of the teacher?

Run it with `python -m benchmarks.starts`. Same teacher, text, steps and batches for both starts, in turns.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Literal

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.corpus import read_corpus
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.student import start_student
from kdnas_core.distillation.targets import Targets, teacher_targets
from kdnas_core.distillation.teacher import Teacher, load_teacher
from kdnas_core.distillation.trainer import HeldOut, Watcher, distil
from kdnas_core.measure.device import device
from kdnas_core.measure.memory import cache_folder
from kdnas_core.spec import ProxySpec

SHAPES = (Architecture(2, 96, 384, 3), Architecture(3, 192, 768, 6), Architecture(4, 288, 768, 12))
Start = Literal["random", "teacher"]
STARTS: tuple[Start, ...] = ("random", "teacher")
PROXY = ProxySpec(sentences=2_000, held_out=200, steps=80)


@dataclass(frozen=True)
class Row:
    """One student's held-out losses, from before the first step to after the last."""

    shape: str
    start: Start
    seconds: float
    losses: list[float]


def main() -> None:
    """Prints held-out losses by start and step, and the ratio of the last losses."""
    teacher = load_teacher("packaged")
    texts = read_corpus("packaged", cache_folder(), 0, PROXY.sentences + PROXY.held_out)
    train, held_out = (
        teacher_targets(teacher, part, PROXY.sequence_length, autocast_dtype(), cache_folder())
        for part in (texts[PROXY.held_out :], texts[: PROXY.held_out])
    )
    rows: list[Row] = []
    for shape in SHAPES:
        for start in STARTS:
            row = _one(teacher, shape, start, train, held_out)
            print(
                f"{shape.key:<24}{start:<9}{row.seconds:6.1f} s  {'  '.join(f'{x:.3f}' for x in row.losses)}"
            )
            rows.append(row)
    last = {(row.shape, row.start): row.losses[-1] for row in rows}
    ratio = statistics.median(last[shape.key, "teacher"] / last[shape.key, "random"] for shape in SHAPES)
    summary = {"steps": PROXY.steps, "median_ratio_teacher_over_random": ratio}
    print(json.dumps({**summary, "rows": [asdict(row) for row in rows]}))


def _one(teacher: Teacher, shape: Architecture, start: Start, train: Targets, held_out: Targets) -> Row:
    results: list[HeldOut] = []
    watcher = Watcher(step=lambda step: None, held_out=results.append)
    with device():
        began = time.perf_counter()
        student = start_student(teacher, shape, start, train, seed=0)
        layers = layer_map("uniform+last", shape.layers, teacher.layers)
        objective = HiddenStateObjective(
            layers, shape.hidden_size, teacher.architecture.hidden_size, "per_layer"
        )
        distil(student, objective, train, held_out, PROXY, 0, autocast_dtype(), watcher)
    return Row(shape.key, start, time.perf_counter() - began, [result.loss for result in results])


if __name__ == "__main__":
    main()
