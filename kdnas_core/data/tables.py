"""The tables of a task by language and split, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

TRAIN = "train"
SCORABLE = ("validation", "test")

# The columns of a pair in public tasks.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
)


@dataclass(frozen=True)
class Table:
    """A split as it was read: texts are valid, labels not yet checked.

    Attributes:
        where: the name of the split in messages: "train", "de/validation".
        firsts: the texts, or the first texts of pairs.
        seconds: the second texts of pairs; None where rows are single texts.
        labels: one a row; None where it is missing.
    """

    where: str
    firsts: Sequence[str]
    seconds: Sequence[str] | None
    labels: Sequence[Any]


Splits = dict[str, Callable[[], Table]]


@dataclass(frozen=True)
class TaskSource:
    """A task whose tables may not have been read yet.

    Attributes:
        name: of the task.
        languages: readers of the splits by language; a task without languages has the key "" alone.
        train_language: the default language to train on.
        classes: declared by the data, in the order of its indices; else empty.
    """

    name: str
    languages: dict[str, Splits]
    train_language: str = ""
    classes: tuple[str, ...] = ()


def text_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the two columns of a pair, else `sentence`, else nothing."""
    pair = next((pair for pair in PAIRS if set(pair) <= set(columns)), ())
    return pair or (("sentence",) if "sentence" in columns else ())


def quoted(names: Sequence[str]) -> str:
    """Returns names quoted and joined by commas."""
    return ", ".join(map(repr, names)) or "nothing"
