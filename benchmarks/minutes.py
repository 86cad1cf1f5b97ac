"""What are a student's sentence vectors worth after some minutes of full distillation on one core?

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.minutes STSB --minutes 4 20`, STSB a folder with the local
task. Minutes are of processor time, by one thread, so that other work on the machine does not count; a first
run of some steps shows how many fit, of the first epoch with its teacher and of later ones without. Scored by
Spearman's correlation on the test split, and by the packaged retrieval; nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.retrieval import read_retrieval
from kdnas_core.data.tasks import read_task
from kdnas_core.evaluation.retrieval import retrieval_scores
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.models.student import read_student
from kdnas_core.models.teacher import load_teacher
from kdnas_core.spec import DistilSpec, RunSpec
from kdnas_core.students.full import FullListener, FullResult, distil_fully

PACE_STEPS = 160  # of each epoch of the run that shows the pace
MARGIN = 0.95  # of the steps that fit by that pace, since a busy machine is slower
BATCH = 32


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
    parser.add_argument("--cut", choices=["pieces", "chunks"], default=None, help="as of `distill`")
    parser.add_argument("--texts", type=int, default=40_000, help="the most; read again while time is left")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    given = parser.parse_args()
    how = DistilSpec(
        recipe=given.recipe,
        pairs=given.pairs,
        sequence_length=given.tokens,
        cut=given.cut,
        sentences=given.texts,
        learning_rate=given.learning_rate,
    )
    teacher, spec = load_teacher("packaged"), RunSpec(corpus=given.corpus)
    rows = read_task(str(given.stsb), cache_folder()).splits["test"]
    retrieval = read_retrieval("packaged-retrieval", cache_folder(), "test")
    found = []
    for minutes in given.minutes:
        with tempfile.TemporaryDirectory() as folder:
            row = distil_for(minutes, Architecture(*given.shape), spec, how, Path(folder))
            student = read_student(Path(folder))
            score = similarity_score(student, teacher.tokenizer, rows, 128)
            ranked = retrieval_scores(student, teacher.tokenizer, retrieval, 256)["ndcg@10"]
        found.append({**row, "stsb_zero_shot": round(100 * score, 2), "ndcg@10": round(100 * ranked, 2)})
        print(found[-1], flush=True)
    print(json.dumps({**vars(given), "stsb": given.stsb.name, "rows": found}))


def distil_for(
    minutes: float, shape: Architecture, spec: RunSpec, how: DistilSpec, folder: Path
) -> dict[str, float]:
    """Distils a shape of the packaged teacher on a whole corpus for some minutes of one thread.

    Args:
        minutes: of processor time, the teacher's included, from the first step on.
        shape: of the student.
        spec: of its run; has the corpus.
        how: its batch size and epochs are replaced.
        folder: gets the student.

    Returns:
        Minutes, steps, epochs, seconds of training and of all, and agreement in per cent.
    """
    torch.set_num_threads(1)
    with _own_cache():  # outputs that are known from an earlier run would take no time
        return _distilled_for(minutes, shape, spec, how, folder)


@contextmanager
def _own_cache() -> Iterator[None]:
    before = os.environ.get("KDNAS_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["KDNAS_CACHE"] = cache
        try:
            yield
        finally:
            os.environ.pop("KDNAS_CACHE")
            if before is not None:
                os.environ["KDNAS_CACHE"] = before


def _distilled_for(
    minutes: float, shape: Architecture, spec: RunSpec, how: DistilSpec, folder: Path
) -> dict[str, float]:
    how = how.model_copy(update={"batch_size": BATCH})
    first, later = _paces(spec, how, shape)
    texts = _texts_of(spec, how, shape)
    of_first, most = texts // BATCH, MARGIN * 60 * minutes
    # of the two, the greater: later epochs are faster
    steps = int(max(min(most / first, of_first), of_first + (most - of_first * first) / later))
    how = how.model_copy(update={"epochs": steps * BATCH / texts})
    began = time.process_time()
    result, marks = _distilled(spec, how, shape, folder)
    return {
        "minutes": minutes,
        "texts": texts,
        "steps": max(marks),
        "epochs": round(how.epochs, 2),
        "training_seconds": round(marks[max(marks)] - marks[0]),
        "all_seconds": round(time.process_time() - began),
        "agreement": round(100 * (1 - result.loss), 2),
    }


def _paces(spec: RunSpec, how: DistilSpec, shape: Architecture) -> tuple[float, float]:
    """Processor seconds of a step in the first epoch, and in later ones."""
    how = how.model_copy(update={"sentences": PACE_STEPS * BATCH, "epochs": 2.0})
    with tempfile.TemporaryDirectory() as folder:
        _, marks = _distilled(spec, how, shape, Path(folder))
    middle, skipped = PACE_STEPS, PACE_STEPS // 4
    first = (marks[middle] - marks[skipped]) / (middle - skipped)
    return first, (marks[2 * middle] - marks[middle]) / middle


class _BegunError(Exception):
    """Ends a distillation before its first step."""


def _texts_of(spec: RunSpec, how: DistilSpec, shape: Architecture) -> int:
    """How many texts the student learns from, in whole batches."""
    steps = 0

    def begun(of_an_epoch: int) -> None:
        nonlocal steps
        steps = of_an_epoch
        raise _BegunError

    once = how.model_copy(update={"epochs": 1.0})
    with tempfile.TemporaryDirectory() as folder, suppress(_BegunError):
        distil_fully(spec, once, shape, Path(folder), _listener(begun, lambda taken: None))
    return steps * BATCH


def _distilled(
    spec: RunSpec, how: DistilSpec, shape: Architecture, folder: Path
) -> tuple[FullResult, dict[int, float]]:
    """The outcome, and the processor seconds at the beginning and after each step."""
    marks: dict[int, float] = {}

    def mark(taken: int) -> None:
        marks[taken] = time.process_time()

    return distil_fully(spec, how, shape, folder, _listener(lambda steps: mark(0), mark)), marks


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
