"""What are a student's sentence vectors worth after some minutes of full distillation on one core?

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.minutes STSB --minutes 4 20`, STSB a folder with the local
task. Minutes are of processor time, by one thread, so that other work on the machine does not count; a first
run of some steps tells how many fit. Scored by Spearman's correlation on the test split; nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import read_task
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.models.student import read_student
from kdnas_core.models.teacher import load_teacher
from kdnas_core.spec import DistilSpec, RunSpec
from kdnas_core.students.full import FullListener, FullResult, distil_fully

PACE_STEPS = 40  # of the run that tells the pace
BATCH = 32
MOST_TEXTS = 1_000_000


class _EnoughError(Exception):
    """Ends the run that tells the pace."""


def main() -> None:
    """Distils the shape once for each number of minutes, and prints what it scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stsb", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[4.0, 20.0])
    parser.add_argument("--shape", type=int, nargs=4, default=[2, 288, 384, 6])
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--pairs", type=float, default=None)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape, spec = Architecture(*given.shape), RunSpec(corpus=given.corpus)
    how = {
        "recipe": given.recipe,
        "pairs": given.pairs,
        "sequence_length": given.tokens,
        "learning_rate": given.learning_rate,
        "batch_size": BATCH,
    }
    teacher = load_teacher("packaged")
    rows = read_task(str(given.stsb), cache_folder()).splits["test"]
    pace, texts = _pace(spec, how, shape)
    found = []
    for minutes in given.minutes:
        steps = round(60 * minutes / pace)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            taken = DistilSpec(**how, sentences=MOST_TEXTS, epochs=steps * BATCH / texts)
            result, seconds = _distilled(spec, taken, shape, Path(folder))
            whole = time.process_time() - began
            student = read_student(Path(folder))
        score = similarity_score(student, teacher.tokenizer, rows, 128)
        row = {
            "minutes": minutes,
            "steps": steps,
            "epochs": round(taken.epochs, 2),
            "training_seconds": round(seconds),
            "all_seconds": round(whole),
            "agreement": round(100 * (1 - result.loss), 2),
            "stsb_zero_shot": round(100 * score, 2),
        }
        print(row, flush=True)
        found.append(row)
    print(json.dumps({**vars(given), "stsb": str(given.stsb.name), "texts": texts, "rows": found}))


def _pace(spec: RunSpec, how: dict[str, object], shape: Architecture) -> tuple[float, int]:
    """Processor seconds of a step, and how many texts the corpus has."""
    marks: dict[int, float] = {}
    steps_of_an_epoch = 0

    def step(taken: int) -> None:
        marks[taken] = time.process_time()
        if taken == PACE_STEPS:
            raise _EnoughError

    def begun(steps: int) -> None:
        nonlocal steps_of_an_epoch
        steps_of_an_epoch = steps

    with tempfile.TemporaryDirectory() as folder:
        try:
            epoch = DistilSpec(**how, sentences=MOST_TEXTS, epochs=1.0)  # type: ignore[arg-type]
            distil_fully(spec, epoch, shape, Path(folder), _listener(begun, step))
        except _EnoughError:
            pass
    skipped = PACE_STEPS // 4
    return (marks[PACE_STEPS] - marks[skipped]) / (PACE_STEPS - skipped), steps_of_an_epoch * BATCH


def _distilled(spec: RunSpec, how: DistilSpec, shape: Architecture, folder: Path) -> tuple[FullResult, float]:
    """The outcome, and the processor seconds from the first step on."""
    began = 0.0

    def begun(steps: int) -> None:
        nonlocal began
        began = time.process_time()

    result = distil_fully(spec, how, shape, folder, _listener(begun, lambda taken: None))
    return result, time.process_time() - began


def _listener(begun: Callable[[int], None], step: Callable[[int], None]) -> FullListener:
    return FullListener(
        waiting=lambda: None,
        say=lambda words: None,
        begun=begun,
        noted=lambda notes: None,
        step=step,
        held_out=lambda taken, terms: None,
    )


if __name__ == "__main__":
    main()
