"""What benchmarks of many students share: texts, a CSV that grows by a row at a time, scores on a task."""

from __future__ import annotations

import csv
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.splits import proxy_texts
from kdnas_core.data.tasks import Task
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.evaluation.classifier import logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import figure_of
from kdnas_core.files import cache_folder
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import ProxySpec


def texts_of(corpus: str, proxy: ProxySpec, teacher: Teacher) -> tuple[list[str], list[str]]:
    """Held-out texts and texts to learn from, as a run with this proxy set reads them."""
    found = proxy_texts(corpus, cache_folder(), proxy, teacher.tokenizer, lambda words: None)
    return [text.text for text in found.held_out], [text.text for text in found.learnt]


def append(out: Path, row: dict[str, object]) -> None:
    """Adds a row to a CSV, which is made if there is none, so that a benchmark can be ended and go on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not out.is_file()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read(*paths: Path) -> list[dict[str, str]]:
    """The rows of all of these CSVs that exist."""
    found: list[dict[str, str]] = []
    for path in paths:
        if path.is_file():
            with path.open(newline="") as file:
                found += csv.DictReader(file)
    return found


def fine_tuned_score(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    how: FineTuning,
    rate: float,
    seed: int,
) -> float:
    """The mean of a task's metrics on its test split, or where it has none on validation, in per cent."""
    train = task.splits["train"][: how.rows]
    training_set = TrainingSet(task, tokens_of(train, tokenizer, how.sequence_length))
    model = fine_tuned(encoder, training_set, how, rate, seed, autocast_dtype())
    rows = task.splits["test" if "test" in task.splits else "validation"]
    tokens = tokens_of(rows, tokenizer, how.sequence_length)
    return round(100 * figure_of(task, tokens.labels, logits_of(model, tokens)), 2)
