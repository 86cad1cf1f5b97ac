"""What a task is made of, wherever it comes from: tables by split and language, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

TRAIN = "train"
SCORABLE = ("validation", "test")

# As the public tasks name the two sides of a pair.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
)


@dataclass(frozen=True)
class Table:
    """A split as it was read: texts that are sound, and labels that nobody has looked at.

    Attributes:
        where: what the split is called to its user: "train", "de/validation".
        firsts: the texts, or the first ones of pairs.
        seconds: the second ones of pairs; None where there are none.
        labels: one a row, None where it is missing.
    """

    where: str
    firsts: Sequence[str]
    seconds: Sequence[str] | None
    labels: Sequence[Any]


Splits = dict[str, Callable[[], Table]]


@dataclass(frozen=True)
class Found:
    """A task that was found, and of which nothing but names may have been read.

    Attributes:
        name: what the task is called.
        languages: readers of its splits by language; of a task that names none, "" alone.
        train_language: the one to train on unless another is asked for.
        classes: in the order of the data's own indices, where it declares them; else empty.
    """

    name: str
    languages: dict[str, Splits]
    train_language: str = ""
    classes: tuple[str, ...] = ()


def text_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The two columns of a pair, else `sentence`, else nothing."""
    pair = next((pair for pair in PAIRS if set(pair) <= set(columns)), ())
    return pair or (("sentence",) if "sentence" in columns else ())


def quoted(names: Sequence[str]) -> str:
    """Names as part of a sentence."""
    return ", ".join(map(repr, names)) or "nothing"
