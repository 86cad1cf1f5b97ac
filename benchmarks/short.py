"""How short may a mini-KD be, and what should it begin with? Losses of one objective in several ways.

Run it with `python -m benchmarks.short --stsb FOLDER`; it goes on where it was ended. Twelve shapes of the
grid of `benchmarks/table/spec.json`, from 2.4 to 24 times as fast as the packaged teacher, are distilled with
one thread from a cut of the teacher for 1,000 steps, which stand for the truth, and in shorter ways: fewer
steps, other learning rates, cut out of a supernet of the grid. Printed is the rank correlation of each way's
losses, at each look, with the true losses; rows go to `benchmarks/results/short.csv`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.rows import append, read
from benchmarks.yardstick import RESULTS
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.trainer import HeldOut, Watcher, distil
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.search.judge import Judge
from kdnas_core.search.prepare import make_judge, prepare
from kdnas_core.search.ranking import ranked
from kdnas_core.spec import RunSpec, parse_spec_json

GRID = Path(__file__).parent / "table" / "spec.json"
SHAPES = [
    *((1, 384, 384, 12), (3, 192, 384, 12), (4, 192, 256, 6), (1, 384, 1024, 6), (6, 144, 256, 12)),
    *((4, 240, 128, 12), (3, 288, 256, 12), (2, 288, 1024, 6), (6, 192, 256, 12), (3, 288, 1024, 12)),
    *((4, 240, 1536, 12), (1, 96, 1024, 6)),
]


@dataclass(frozen=True)
class Way:
    """A mini-KD: what it begins with, its steps, learning rate, and texts to read."""

    start: Literal["teacher", "supernet"]
    steps: int
    rate: float
    texts: int = 4_000

    @property
    def name(self) -> str:
        """In short."""
        return f"{self.start} {self.steps} at {self.rate:g}"


TRUTH = Way("teacher", 1_000, 1e-3, texts=16_000)
WAYS = [
    TRUTH,
    *(Way("teacher", 200, 1e-3), Way("teacher", 60, 1e-3), Way("teacher", 60, 3e-3)),
    *(Way("supernet", 60, 1e-3), Way("supernet", 60, 3e-4)),
]


def main() -> None:
    """Prints how each way ranks, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stsb", type=Path, help="the folder of STS-B, for its score without training")
    parser.add_argument("--out", type=Path, default=RESULTS / "short.csv")
    parser.add_argument("--only", type=int, nargs="+", default=range(len(WAYS)), help="numbers of ways")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = None if given.stsb is None else read_task(str(given.stsb), cache_folder())
    for way in (WAYS[number] for number in given.only):
        known = {(row["way"], row["shape"]) for row in read(given.out)}
        left = [shape for shape in SHAPES if (way.name, Architecture(*shape).key) not in known]
        if left:
            judge = make_judge(prepare(_spec(way), lambda said: None), lambda said: None)
            for shape in left:
                append(given.out, _row(way, Architecture(*shape), judge, task))
    _tell(read(given.out))


def _spec(way: Way) -> RunSpec:
    spec = parse_spec_json(GRID.read_text())
    proxy = {"steps": way.steps, "learning_rate": way.rate, "sentences": way.texts}
    return spec.model_copy(
        update={
            "objective": spec.objective.model_copy(update={"start": way.start}),
            "proxy": spec.proxy.model_copy(update=proxy),
        }
    )


def _row(way: Way, shape: Architecture, judge: Judge, task: Task | None) -> dict[str, object]:
    looks: dict[int, float] = {}

    def looked(result: HeldOut) -> None:
        looks[result.step] = round(result.loss, 4)

    teacher, spec, began = judge.bench.teacher, judge.spec, time.perf_counter()
    start = begin(
        teacher,
        shape,
        spec.objective,
        judge.profile,
        judge.data,
        judge.words,
        0,
        judge.importance,
        shared=judge.shared,
    )
    watcher = Watcher(lambda step: None, looked)
    result = distil(start.student, start.objective, judge.data, spec.proxy, 0, None, watcher)
    seconds = time.perf_counter() - began
    score = None
    if task is not None and way.steps >= 200:
        score = round(100 * similarity_score(start.student, teacher.tokenizer, task.splits["test"], 64), 2)
    return {
        "way": way.name,
        "shape": shape.key,
        "loss": round(result.loss, 4),
        "loss_se": round(result.standard_error or 0, 4),
        "stsb_zero_shot": score,
        "looks": json.dumps(looks),
        "seconds": round(seconds, 1),
    }


def _tell(rows: list[dict[str, str]]) -> None:
    by_way: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_way.setdefault(row["way"], {})[row["shape"]] = row
    truth = by_way.get(TRUTH.name, {})
    summary = {}
    for name, found in by_way.items():
        shapes = [shape for shape in truth if shape in found]
        scores = [-float(truth[shape]["loss"]) for shape in shapes]
        looks = {shape: json.loads(found[shape]["looks"]) for shape in shapes}
        steps = sorted(set.intersection(*(set(each) for each in looks.values())), key=int) if shapes else []
        curve = {
            step: ranked([looks[shape][step] for shape in shapes], scores, [None] * len(shapes), []).spearman
            for step in steps
        }
        summary[name] = {"shapes": len(shapes), "spearman": curve}
        told = "  ".join(f"{step}: {value or 0:.2f}" for step, value in curve.items())
        print(f"{name:<24}{len(shapes):>3} shapes  {told}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
