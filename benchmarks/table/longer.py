"""Distils a part of the table's students for longer, and scores them on four tasks.

Run it with `python -m benchmarks.table.longer TASKS`, a folder with the local tasks stsb, trec, sst2 and
agnews, after `python -m benchmarks.table` has made the table. It goes on where it was ended; `--part 1/2` and
`--part 2/2`, with a file each, share the work between two processes. Six groups of four students have about
the same latency; within a group they differ in depth. Each is distilled six times as long as in the table, on
four times the text, from two seeds. A score is Spearman's correlation of similarities on STS-B, without
training, and the accuracy of a logistic regression on frozen vectors on each other task, in per cent.
`--summary FILE ...` only reads CSVs, and prints how the table's losses, at each step, and costs rank the mean
score over seeds and tasks: Spearman over all, pairs of equal latency that are ranked right, and Spearman with
the score of each task. A row says how the scores of one seed rank those of the other.
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
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import PreTrainedModel

from benchmarks.rows import append, read
from benchmarks.table.__main__ import OUT as TABLE
from benchmarks.table.replay import Table, read_table
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.trainer import HeldOut, Watcher, distil
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


def distilled(shape: Architecture, seed: int, judge: Judge) -> tuple[PreTrainedModel, HeldOut]:
    """Distils a student as a search would, without stopping it; returns it with its last held-out values."""
    spec = judge.spec
    given = (spec.objective, judge.profile, judge.data, judge.words, seed, judge.importance)
    start = begin(judge.bench.teacher, shape, *given)
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    how = (judge.data, spec.proxy, seed, judge.autocast, watcher)
    return start.student, distil(start.student, start.objective, *how, looks=1)


def _row(shape: Architecture, seed: int, judge: Judge, tasks: dict[str, Task]) -> dict[str, float]:
    teacher, length, began = judge.bench.teacher, judge.spec.proxy.sequence_length, time.perf_counter()
    student, result = distilled(shape, seed, judge)
    scores = {"stsb": similarity_score(student, teacher.tokenizer, tasks["stsb"].splits["test"], length)}
    for name in PROBED:
        train, judged = (
            [(row.first, int(row.label)) for row in tasks[name].splits[split][:PROBE_ROWS]]
            for split in ("train", "validation")
        )
        scores[name] = probe_accuracy(student, teacher.tokenizer, train, judged, length)
    return {
        "loss": round(result.loss, 4),
        **{name: round(100 * score, 2) for name, score in scores.items()},
        "seconds": round(time.perf_counter() - began, 1),
    }


def _tell(table: Table, of_table: Sequence[dict[str, str]], rows: Sequence[dict[str, str]]) -> None:
    by_student: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_student.setdefault(row["student"], []).append(row)
    students = list(by_student)
    of_student = {row["student"]: row for row in of_table}
    seen = [of_student[student] for student in students]
    scores = _columns([_scores(by_student[student]) for student in students])
    errors = {name: [-float(row[name]) for row in seen] for name in ("parameters", "flops")}
    for name in of_table[0]:
        if name == "loss" or name.removeprefix("loss_").isdigit():
            errors[name] = [float(row[name]) for row in seen]
    errors["loss after longer"] = [fmean(float(row["loss"]) for row in by_student[each]) for each in students]
    pairs = pairs_of_equal_latency([float(row["ms"]) for row in seen])
    print(f"{len(students)} students, {len(rows)} distillations")
    print(_line("", list(scores), "pairs"))
    summary: dict[str, Any] = {}
    for name, values in errors.items():
        found = ranked(values, scores["mean"], [0.0] * len(students), pairs)
        by_task = {task: _spearman([-value for value in values], scores[task]) for task in scores}
        summary[name] = {**asdict(found), **by_task}
        print(_line(name, [f"{value:.2f}" for value in by_task.values()], f"{found.right} of {found.pairs}"))
    both = [found for found in by_student.values() if len(found) == len(SEEDS)]
    one, other = (_columns([_scores([found[place]]) for found in both]) for place in range(len(SEEDS)))
    summary["other seed"] = {task: _spearman(one[task], other[task]) for task in one}
    print(_line("the other seed", [f"{value:.2f}" for value in summary["other seed"].values()], ""))
    summary["longer"] = _spearman(errors["loss"], errors["loss after longer"])
    print(f"the table's loss ranks the loss after longer by {summary['longer']:.2f}")
    print(json.dumps({"students": len(students), **summary}))


def _scores(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """The scores of one student, averaged over seeds, and their mean."""
    by_task = {task: fmean(float(row[task]) for row in rows) for task in TASKS}
    return {"mean": fmean(by_task.values()), **by_task}


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in ("mean", *TASKS)}


def _line(name: str, cells: Sequence[str], pairs: str) -> str:
    return f"{name:<20}{pairs:>10}" + "".join(f"{cell:>9}" for cell in cells)


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    return float(spearmanr(first, second).statistic)


if __name__ == "__main__":
    main()
