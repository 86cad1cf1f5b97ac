"""How much of a task's score a student keeps with 8-bit weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.errors import BadInput
from kdnas_core.export.onnx_use import OnnxModel
from kdnas_core.measure.classifier import logits_of, predictions, tokens_of
from kdnas_core.measure.linear_probe import probe_accuracy
from kdnas_core.measure.memory import cache_folder
from kdnas_core.measure.metrics import task_score
from kdnas_core.measure.packaged_task import packaged_task
from kdnas_core.measure.tasks import PACKAGED, Task, read_task

ROWS = 2_000  # of a split that are read at the most
LENGTH = 128  # tokens of a task's row
PROBED, PROBE_LENGTH = 1_000, 64  # paragraphs that a probe is fitted on, and tokens of each


@dataclass(frozen=True)
class Scores:
    """The scores of both files on one task, 0 to 1 as a rule."""

    task: str
    fp32: float
    int8: float

    @property
    def retained(self) -> float | None:
        """The share that 8-bit weights keep; None where there is nothing to keep."""
        return self.int8 / self.fp32 if self.fp32 > 0 else None


def scores_of(
    files: tuple[Path, Path],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    task: str | None,
    length: int,
) -> Scores:
    """Scores both ONNX files of a student in the same way.

    A classifier by its own task, an encoder by a linear classifier on its mean vectors, fitted anew for each,
    on the packaged task.

    Args:
        files: in float32, and with 8-bit weights.
        config: of the student.
        tokenizer: its own.
        task: that it is a classifier for; None for an encoder.
        length: that it reads, in tokens.

    Raises:
        BadInput: the task cannot be read here.
    """
    fp32, int8 = (cast(PreTrainedModel, OnnxModel(path, config)) for path in files)
    if task is None:
        train, judged = _packaged_rows()
        probes = [
            probe_accuracy(model, tokenizer, train, judged, min(length, PROBE_LENGTH))
            for model in (fp32, int8)
        ]
        return Scores(f"{PACKAGED} (linear probe)", *probes)
    found = _short(read_task(task, cache_folder()))
    return Scores(
        found.name, *(_score(model, found, tokenizer, min(length, LENGTH)) for model in (fp32, int8))
    )


def _packaged_rows() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """To fit the probe on, and to judge it by: all that are not learnt from, since differences are small."""
    splits = packaged_task(cache_folder())
    rows = {split: [(each.sentence, each.label) for each in some] for split, some in splits.items()}
    train, judged = rows["train"][:PROBED], [*rows["validation"], *rows["test"]][:ROWS]
    if len({label for _, label in train}) < 2 or not judged:
        raise BadInput("The packaged task has too few paragraphs on this machine to compare by.")
    return train, judged


def _short(task: Task) -> Task:
    return replace(task, splits={name: rows[:ROWS] for name, rows in task.splits.items()})


def _score(model: PreTrainedModel, task: Task, tokenizer: PreTrainedTokenizerBase, length: int) -> float:
    predicted = {
        split: predictions(logits_of(model, tokens_of(task.splits[split], tokenizer, length)), task)
        for split in task.scored
    }
    return task_score(task, predicted)
