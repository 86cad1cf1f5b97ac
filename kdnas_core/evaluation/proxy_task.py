"""The proxy of a task: two parts of its training split, to fine-tune on and to score on, in seconds.

The splits that a finished student is scored on are not used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.tasks import PROXY, Task
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.classifier import Tokens, logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, Progress, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import figure_of

LEARNT, JUDGED = 2_000, 1_000  # the most rows
JUDGED_SHARE = 0.25
FEWEST_ROWS = 40
# one rate for all candidates, since choosing one for each would take longer than the rest
_HOW = FineTuning(rates=(3e-4,), examples=6_000, epochs=3, dropout=0.0)


@dataclass(frozen=True)
class ProxyTask:
    """Tokenized rows of a task's training split.

    Attributes:
        task: has the classes and the name.
        learnt: rows to fine-tune on.
        judged: rows to score on.
    """

    task: Task
    learnt: Tokens
    judged: Tokens

    @property
    def name(self) -> str:
        """The name of its scores."""
        return f"{self.task.name}{PROXY}"


def proxy_of(task: Task, tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> ProxyTask:
    """Makes the proxy of a task, the same for all candidates and seeds.

    Args:
        task: with its training split.
        tokenizer: of the teacher and its students.
        sequence_length: the most tokens of a row.

    Raises:
        BadInput: its training split is too small.
    """
    rows = task.splits["train"]
    if len(rows) < FEWEST_ROWS:
        raise BadInput(
            f"The task {task.name} has {len(rows)} rows to train on, but a search needs {FEWEST_ROWS}; "
            "leave it out."
        )
    order = random.Random(0).sample(rows, len(rows))
    judged = min(JUDGED, round(JUDGED_SHARE * len(rows)))
    parts = (order[judged : judged + LEARNT], order[:judged])
    return ProxyTask(task, *(tokens_of(part, tokenizer, sequence_length) for part in parts))


def proxy_score(
    student: PreTrainedModel,
    proxy: ProxyTask,
    seed: int,
    autocast: torch.dtype | None,
    progress: Progress,
) -> float:
    """Fine-tunes a student on the proxy; returns the mean of the task's metrics, from 0 to 1.

    Args:
        student: not changed.
        proxy: of the task.
        seed: of the head, the order of the rows and the dropout.
        autocast: dtype of forward passes, None for float32.
        progress: called after each step.

    Raises:
        Diverged: fine-tuning diverged.
    """
    data = TrainingSet(proxy.task, proxy.learnt)
    classifier = fine_tuned(student, data, _HOW, _HOW.rates[0], seed, autocast, progress)
    logits = logits_of(classifier, proxy.judged, autocast)
    return max(0.0, figure_of(proxy.task, proxy.judged.labels, logits))
