"""What each stage and each loss of TinyBERT is worth for a student of one task, after its table of ablations.

Run it with `python -m benchmarks.ablation --tasks FOLDER ...`. One student shape with as many heads as its
teacher. General distillation is a full one of the corpus, or left out (a start cut out of the teacher); task
distillation is left out by fine-tuning on the labels. Scores are of the task's validation split, one seed:
differences of a point are noise on small tasks.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from kdnas_core.architecture import Architecture
from kdnas_core.data.corpus import read_corpus
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.evaluation.fine_tuning import FineTuning
from kdnas_core.evaluation.scoring import Scored, ScoringListener, score_on, values_of
from kdnas_core.files import cache_folder
from kdnas_core.models.importance import importance_of
from kdnas_core.models.student import save, start_student
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher
from kdnas_core.models.teacher_outputs import teacher_targets
from kdnas_core.spec import DistilSpec, RunSpec, TermKind
from kdnas_core.students.full import SAMPLE, FullListener, distil_fully
from kdnas_core.students.task_stage import distil_for_task

LISTENER = FullListener(
    waiting=lambda: None,
    say=lambda activity: None,
    begun=lambda steps: None,
    noted=lambda notes: None,
    step=lambda step: None,
    held_out=lambda step, terms: None,
)


@dataclass(frozen=True)
class Variant:
    """What is left out."""

    name: str
    general: bool = True
    task: bool = True
    augment: bool = True
    without: Sequence[TermKind] = ()


VARIANTS = (
    Variant("all"),
    Variant("without general distillation", general=False),
    Variant("without task distillation", task=False),
    Variant("without augmentation", augment=False),
    Variant("without the embedding term", without=("embedding",)),
    Variant("without the attention term", without=("attention",)),
    Variant("without the hidden term", without=("hidden",)),
)


def main() -> None:
    """Prints a table, and JSON in the last line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    disable_progress_bar()
    given = _arguments()
    spec = RunSpec(teacher=given.teacher, corpus=given.corpus)
    teacher = load_teacher(spec.teacher)
    heads = teacher.architecture.attention_heads
    shape = Architecture(given.layers, given.hidden, given.intermediate, heads)
    with tempfile.TemporaryDirectory() as folder:
        starts = _starts(spec, shape, teacher, given, Path(folder))
        rows = [_row(variant, spec, teacher, starts, given, Path(folder)) for variant in VARIANTS]
    print(f"{'':<30}" + "".join(f"{Path(task).name:>12}" for task in given.tasks) + f"{'average':>12}")
    for variant, scores in zip(VARIANTS, rows, strict=True):
        values = "".join(f"{score:12.4f}" for score in scores)
        print(f"{variant.name:<30}{values}{fmean(scores):12.4f}")
    shown = {
        variant.name: dict(zip(given.tasks, scores, strict=True))
        for variant, scores in zip(VARIANTS, rows, strict=True)
    }
    print(json.dumps({"student": shape.key, "scores": shown}))


def _starts(
    spec: RunSpec, shape: Architecture, teacher: Teacher, given: argparse.Namespace, folder: Path
) -> dict[bool, Path]:
    """A student after general distillation (True), and one that was only cut out of its teacher (False)."""
    general = given.student or folder / "general"
    if given.student is None:
        how = DistilSpec(epochs=given.epochs, sentences=given.sentences, sequence_length=64)
        distil_fully(spec, how, shape, general, LISTENER)
    texts = read_corpus(spec.corpus, cache_folder(), seed=0, limit=SAMPLE)
    sample = teacher_targets(teacher, texts, 64, autocast_dtype(), cache_folder())
    importance = importance_of(teacher, texts, "mean", cache_folder())
    save(start_student(teacher, shape, sample, 0, importance)[0], teacher.tokenizer, folder / "cut")
    return {True: general, False: folder / "cut"}


def _row(
    variant: Variant,
    spec: RunSpec,
    teacher: Teacher,
    starts: dict[bool, Path],
    given: argparse.Namespace,
    folder: Path,
) -> list[float]:
    scores = []
    for source in given.tasks:
        began = time.monotonic()
        task, start = read_task(source, cache_folder()), starts[variant.general]
        if variant.task:
            into = folder / f"{variant.name} {task.name}"
            scores.append(_taught(variant, spec, teacher, task, source, start, into, given))
        else:
            scores.append(_fine_tuned(teacher, task, start))
        seconds = time.monotonic() - began
        print(f"{variant.name}, {task.name}: {scores[-1]:.4f} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return scores


def _taught(
    variant: Variant,
    spec: RunSpec,
    teacher: Teacher,
    task: Task,
    source: str,
    start: Path,
    folder: Path,
    given: argparse.Namespace,
) -> float:
    # as many rows are read with variants as without: else augmentation would also be more steps
    epochs = given.task_epochs / (1 + given.copies) if variant.augment else given.task_epochs
    how = DistilSpec(task=source, epochs=epochs, augment=variant.augment, copies=given.copies)
    distil_for_task(spec, how, start, folder, LISTENER, variant.without)
    classifier: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    )
    return fmean(values_of(classifier, teacher.tokenizer, task, FineTuning(), autocast_dtype())[0].values())


def _fine_tuned(teacher: Teacher, task: Task, start: Path) -> float:
    encoder: PreTrainedModel = AutoModel.from_pretrained(start, dtype=torch.float32)
    model = Scored(encoder.eval(), teacher.tokenizer, fingerprint(encoder))
    silent = ScoringListener(lambda: None, lambda activity, step, steps: None)
    return score_on(model, task, FineTuning(), [0], autocast_dtype(), silent).figure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", default="packaged")
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--tasks", nargs="+", default=["packaged"])
    parser.add_argument("--student", type=Path, help="folder of one that is distilled already, of this shape")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--epochs", type=float, default=0.5, help="of general distillation")
    parser.add_argument("--sentences", type=int, default=1_000_000, help="of the corpus at the most")
    parser.add_argument(
        "--task-epochs", type=float, default=4.0, help="of a task's rows, in each of its stages"
    )
    parser.add_argument("--copies", type=int, default=20, help="variants of a row")
    return parser.parse_args()


if __name__ == "__main__":
    main()
