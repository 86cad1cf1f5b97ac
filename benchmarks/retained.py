"""What does a student of an hour keep of its teacher on real tasks, with pairs read apart and together?

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.retained TASKS --corpus FILE --shape 3 192 288 12
--from 2 3 6 --minutes 60 --out student.csv`, TASKS a folder with the eight local tasks. A student of that
shape is distilled for that many minutes of one thread, the teacher's outputs included; with `--from` it also
learns hidden states and attention of the teacher's layers that it is cut from, half of its texts read as
pairs. Then it is fine-tuned as `evaluate` does and scored on validation splits. With `--minutes 0` it has
random weights, which shows what the tasks alone teach, and without `--shape` the teacher is scored. Each
score is appended to a CSV as it is done, so that a benchmark that was ended goes on; `--summary STUDENT.csv
--teacher TEACHER.csv` prints what was retained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.minutes import distil_for
from benchmarks.rows import append, read
from kdnas_core.architecture import Architecture
from kdnas_core.data.retrieval import read_retrieval
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.evaluation.retrieval import retrieval_scores
from kdnas_core.evaluation.scoring import Scored, ScoringListener, score_on
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.student import new_student, read_student
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher
from kdnas_core.spec import DistilSpec, LatencySpec, ObjectiveSpec, RunSpec, TermSpec
from kdnas_core.students.task_teacher import STUDENT_DROPOUT, usual_settings

SINGLE = ("sst2", "trec", "agnews", "cola")
PAIRS = ("stsb", "mrpc", "qnli", "rte")
SEEDS = 3
WITHOUT_TRAINING = ("stsb, without training", "packaged retrieval")


def main() -> None:
    """Distils and scores what the CSV lacks, or prints a summary."""
    given = _arguments()
    if given.summary:
        return _summarise(given.summary, given.teacher)
    torch.set_num_threads(1)
    teacher = load_teacher("packaged")
    model, how = teacher.model, usual_settings(teacher, 100_000)
    if given.shape:
        model, how = _student(given, teacher), replace(how, dropout=STUDENT_DROPOUT)
    scored = Scored(model, teacher.tokenizer, fingerprint(model))
    done = {row["task"] for row in read(given.out)}
    for name, score, deviation in _without_training(scored, given.tasks):
        if name not in done:
            append(given.out, {"task": name, "score": score, "deviation": deviation})
    for task, apart in _readings(given.tasks):
        name = task.name + (" (apart)" if apart else " (together)" if task.is_pair else "")
        if name in done:
            continue
        found = score_on(scored, task, how, range(SEEDS), autocast_dtype(), _silent(), reads_apart=apart)
        of_seeds = [100 * fmean(values.values()) for values in found.seeds]
        row = {"task": name, "score": round(fmean(of_seeds), 2), "deviation": round(stdev(of_seeds), 2)}
        append(given.out, row)
        print(row, flush=True)


def _student(given: argparse.Namespace, teacher: Teacher) -> Any:
    """The student beside the CSV, or else a new one."""
    shape = Architecture(*given.shape)
    folder: Path = given.out.with_suffix("")
    if given.minutes == 0:
        return new_student(teacher, shape, seed=0)
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        objective = _layered(given.layers) if given.layers else ObjectiveSpec()
        how = DistilSpec(sequence_length=64, pairs=0.5 if given.layers else 0.0, sentences=given.texts)
        spec = RunSpec(corpus=given.corpus, objective=objective)
        print(distil_for(given.minutes, shape, spec, how, folder), flush=True)
        reading = LatencyBench(teacher, LatencySpec(budget_speedup=2.0)).student_latency(
            shape, read_student(folder)
        )
        print(f"{shape.key}: {reading.speedup:.2f} times as fast as the teacher", flush=True)
    return read_student(folder)


def _layered(layers: Sequence[int]) -> ObjectiveSpec:
    """Hidden states and attention of the layers that a student is cut from, and its sentence vectors."""
    own: list[int | None] = list(layers)
    terms = [
        TermSpec(kind="hidden", mapping=own),
        TermSpec(kind="attention_kl", mapping=own, weight=3.0),
        TermSpec(kind="vector", mapping="final", weight=4.0),
        TermSpec(kind="similarity", mapping="final"),
    ]
    return ObjectiveSpec(recipe="custom", start_layers=list(layers), terms=terms)


def _without_training(model: Scored, tasks: Path) -> Iterator[tuple[str, float, float]]:
    rows = read_task(str(tasks / "stsb"), cache_folder()).splits["test"]
    similar = similarity_score(model.encoder, model.tokenizer, rows, 128)
    yield WITHOUT_TRAINING[0], round(100 * similar, 2), 0.0
    retrieval = read_retrieval("packaged-retrieval", cache_folder(), "test")
    ranked = retrieval_scores(model.encoder, model.tokenizer, retrieval, 256)["ndcg@10"]
    yield WITHOUT_TRAINING[1], round(100 * ranked, 2), 0.0


def _readings(tasks: Path) -> Iterator[tuple[Task, bool]]:
    """The tasks, and whether their pairs are read apart; the quickest first."""
    for apart, names in (
        (False, ("stsb", "rte", "mrpc", "cola", "trec", "qnli", "sst2", "agnews")),
        (True, PAIRS),
    ):
        for name in names:
            yield read_task(str(tasks / name), cache_folder(), split="validation"), apart


def _silent() -> ScoringListener:
    return ScoringListener(waiting=lambda: None, step=lambda words, step, of: None)


def _summarise(student: Path, teacher: Path) -> None:
    """Prints the averages over eight tasks with pairs read apart and together, and what is retained."""
    mine, theirs = ({row["task"]: float(row["score"]) for row in read(path)} for path in (student, teacher))
    summary: dict[str, Any] = {}
    for reading in ("apart", "together"):
        names = [*SINGLE, *(f"{name} ({reading})" for name in PAIRS)]
        names = [name for name in names if name in mine and name in theirs]
        averages = [fmean(scores[name] for name in names) for scores in (mine, theirs)]
        summary[reading] = {
            "tasks": len(names),
            "student": round(averages[0], 2),
            "teacher": round(averages[1], 2),
            "retained": round(100 * averages[0] / averages[1], 1),
        }
    for name in WITHOUT_TRAINING:
        if name in mine and name in theirs:
            summary[name] = {"student": mine[name], "retained": round(100 * mine[name] / theirs[name], 1)}
    for name, values in summary.items():
        print(f"{name:<26}{values}")
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", type=Path, nargs="?")
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--shape", type=int, nargs=4, help="layers, hidden size, FFN size, heads")
    parser.add_argument("--from", dest="layers", type=int, nargs="+", help="a teacher layer for each layer")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--texts", type=int, default=1_000_000, help="the most; read again while time is left"
    )
    parser.add_argument("--out", type=Path, default=Path("retained.csv"))
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--teacher", type=Path, default=Path("teacher.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
