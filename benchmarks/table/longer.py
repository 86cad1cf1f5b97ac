"""Distils a part of the table's students for longer, and scores them on four tasks.

Run it with `python -m benchmarks.table.longer TASKS`, a folder with the local tasks stsb, trec, sst2 and
agnews, after `python -m benchmarks.table` has made the table. It goes on where it was ended; `--part 1/2` and
`--part 2/2`, with a file each, share the work between two processes. Six groups of four students have about
the same latency; within a group they differ in depth. Each is distilled six times as long as in the table, on
four times the text, from two seeds. A score is Spearman's correlation of similarities on STS-B, without
training, and the accuracy of a logistic regression on frozen vectors on each other task, in per cent.
`--summary FILE ...` only reads CSVs, and prints how the table's losses, at each step, and costs rank the mean
score over seeds and tasks: Spearman over all, and pairs of equal latency that are ranked right.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.rows import append, read
from benchmarks.table.__main__ import OUT as TABLE
from benchmarks.table.replay import Table, read_table
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.trainer import Watcher, distil
from kdnas_core.evaluation.zero_shot import probe_accuracy, similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.search.judge import Judge
from kdnas_core.search.prepare import make_judge, prepare
from kdnas_core.search.ranking import pairs_of_equal_latency, ranked
from kdnas_core.spec import RunSpec, parse_spec_json

OUT = Path(__file__).with_name("longer.csv")
SPEC = Path(__file__).with_name("spec.json")
GROUPS = (2.3, 3.2, 4.5, 6.5, 9.0, 13.0)  # times as fast as the teacher
NEAR = 0.07  # the most by which a latency differs from its group's
OF_A_GROUP = 4
SEEDS = (0, 1)
STEPS = 6  # times those of the table
TEXTS = 16_000
PROBE_ROWS = 3_000
PROBED = ("trec", "sst2", "agnews")
TASKS = ("stsb", *PROBED)


def main() -> None:
    """Adds a row for each student and seed that the CSV lacks, and prints how the table ranks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, nargs="?")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--summary", type=Path, nargs="+")
    given = parser.parse_args()
    table = read_table(given.table)
    if given.summary is None:
        _measure(table, given.tasks, given.out, given.part)
    _tell(table, read(given.table), read(*(given.summary or [given.out])))


def chosen(table: Table) -> dict[Architecture, int]:
    """Students with the number of their group, of as many depths as a group has."""
    found: dict[Architecture, int] = {}
    for number, speedup in enumerate(GROUPS):
        ms = table.teacher_ms / speedup
        near = [shape for shape, row in table.rows.items() if row.losses and abs(row.ms / ms - 1) <= NEAR]
        random.Random(number).shuffle(near)
        by_depth: dict[int, list[Architecture]] = {}
        for shape in near:
            by_depth.setdefault(shape.layers, []).append(shape)
        rounds = [shapes[place] for place in range(OF_A_GROUP) for shapes in _longer_than(by_depth, place)]
        found |= dict.fromkeys(rounds[:OF_A_GROUP], number)
    return found


def _longer_than(by_depth: dict[int, list[Architecture]], place: int) -> list[list[Architecture]]:
    return [shapes for _, shapes in sorted(by_depth.items()) if len(shapes) > place]


def _measure(table: Table, folder: Path, out: Path, part: str) -> None:
    which, of = map(int, part.split("/"))
    torch.set_num_threads(1)
    tasks = {name: read_task(str(folder / name), cache_folder()) for name in TASKS}
    judge = make_judge(prepare(_spec(table), lambda said: None), lambda said: None)
    todo = [(shape, group, seed) for seed in SEEDS for shape, group in chosen(table).items()]
    for shape, group, seed in todo[which - 1 :: of]:
        if any(row["student"] == shape.key and row["seed"] == str(seed) for row in read(out)):
            continue
        row = {"student": shape.key, "group": group, "seed": seed, **_row(shape, seed, judge, tasks)}
        append(out, row)
        print(row, flush=True)


def _spec(table: Table) -> RunSpec:
    spec = parse_spec_json(SPEC.read_text())
    longer = {"steps": STEPS * table.steps, "sentences": TEXTS}
    return spec.model_copy(update={"proxy": spec.proxy.model_copy(update=longer)})


def _row(shape: Architecture, seed: int, judge: Judge, tasks: dict[str, Task]) -> dict[str, float]:
    teacher, spec, began = judge.bench.teacher, judge.spec, time.perf_counter()
    given = (spec.objective, judge.profile, judge.data, judge.words, seed, judge.importance)
    start = begin(teacher, shape, *given)
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    how = (judge.data, spec.proxy, seed, judge.autocast, watcher)
    result = distil(start.student, start.objective, *how, looks=1)
    length = spec.proxy.sequence_length
    scores = {
        "stsb": similarity_score(start.student, teacher.tokenizer, tasks["stsb"].splits["test"], length)
    }
    for name in PROBED:
        train, judged = (
            [(row.first, int(row.label)) for row in tasks[name].splits[split][:PROBE_ROWS]]
            for split in ("train", "validation")
        )
        scores[name] = probe_accuracy(start.student, teacher.tokenizer, train, judged, length)
    return {
        "loss": round(result.loss, 4),
        **{name: round(100 * score, 2) for name, score in scores.items()},
        "seconds": round(time.perf_counter() - began, 1),
    }


def _tell(table: Table, of_table: Sequence[dict[str, str]], rows: Sequence[dict[str, str]]) -> None:
    by_student: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_student.setdefault(row["student"], []).append(row)
    of_student = {row["student"]: row for row in of_table}
    students = list(by_student)
    scores = [fmean(float(row[task]) for row in by_student[each] for task in TASKS) for each in students]
    errors = {name: [-float(of_student[each][name]) for each in students] for name in ("parameters", "flops")}
    for name in (name for name in of_table[0] if name.removeprefix("loss_").isdigit()):
        errors[name] = [float(of_student[each][name]) for each in students]
    errors["loss after longer"] = [fmean(float(row["loss"]) for row in by_student[each]) for each in students]
    pairs = pairs_of_equal_latency([float(of_student[each]["ms"]) for each in students])
    print(
        f"{len(students)} students, {len(rows)} distillations; Spearman, pairs of equal latency ranked right"
    )
    summary = {}
    for name, values in errors.items():
        found = ranked(values, scores, [0.0] * len(scores), pairs)
        summary[name] = asdict(found)
        print(f"{name:<20}{found.spearman or 0:>6.2f}{found.right:>6} of {found.pairs}")
    print(json.dumps({"students": len(students), **summary}))


if __name__ == "__main__":
    main()
