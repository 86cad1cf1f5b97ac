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
from contextlib import suppress
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

PACE_STEPS = 160  # of the run that tells the pace
MARGIN = 0.95  # of the steps that fit by that pace, since a busy machine is slower
BATCH = 32
MOST_TEXTS = 1_000_000


class _EnoughError(Exception):
    """Ends the run that tells the pace."""


def main() -> None:
    """Distils the shape once for each number of minutes, and prints what it scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stsb", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[4.0, 20.0])
    parser.add_argument("--shape", type=int, nargs=4, default=[1, 384, 768, 12])
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--pairs", type=float, default=None)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    given = parser.parse_args()
    how = DistilSpec(
        recipe=given.recipe,
        pairs=given.pairs,
        sequence_length=given.tokens,
        learning_rate=given.learning_rate,
    )
    teacher = load_teacher("packaged")
    rows = read_task(str(given.stsb), cache_folder()).splits["test"]
    found = []
    for minutes in given.minutes:
        with tempfile.TemporaryDirectory() as folder:
            row = distil_for(minutes, Architecture(*given.shape), given.corpus, how, Path(folder))
            score = similarity_score(read_student(Path(folder)), teacher.tokenizer, rows, 128)
        found.append({**row, "stsb_zero_shot": round(100 * score, 2)})
        print(found[-1], flush=True)
    print(json.dumps({**vars(given), "stsb": given.stsb.name, "rows": found}))


def distil_for(
    minutes: float, shape: Architecture, corpus: str, how: DistilSpec, folder: Path
) -> dict[str, float]:
    """Distils a shape of the packaged teacher on a whole corpus for some minutes of one thread.

    Args:
        minutes: of processor time, the teacher's included, from the first step on.
        shape: of the student.
        corpus: as `RunSpec` names it.
        how: its sentences, batch size and epochs are replaced.
        folder: gets the student.

    Returns:
        Minutes, steps, epochs, seconds of training and of all, and agreement in per cent.
    """
    torch.set_num_threads(1)
    spec = RunSpec(corpus=corpus)
    how = how.model_copy(update={"sentences": MOST_TEXTS, "batch_size": BATCH, "epochs": 1.0})
    pace, texts = _pace(spec, how, shape)
    steps = int(MARGIN * 60 * minutes / pace)
    how = how.model_copy(update={"epochs": steps * BATCH / texts})
    began = time.process_time()
    result, seconds = _distilled(spec, how, shape, folder)
    return {
        "minutes": minutes,
        "texts": texts,
        "steps": steps,
        "epochs": round(how.epochs, 2),
        "training_seconds": round(seconds),
        "all_seconds": round(time.process_time() - began),
        "agreement": round(100 * (1 - result.loss), 2),
    }


def _pace(spec: RunSpec, how: DistilSpec, shape: Architecture) -> tuple[float, int]:
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

    with tempfile.TemporaryDirectory() as folder, suppress(_EnoughError):
        distil_fully(spec, how, shape, Path(folder), _listener(begun, step))
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
