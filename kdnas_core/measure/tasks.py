"""Downstream tasks by name: the packaged one, or a local folder with a table for each split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdnas_core.distillation.columns import reason
from kdnas_core.errors import BadInput
from kdnas_core.measure.packaged_task import LIBRARIES, packaged_task

SPLITS = ("train", "validation", "test")
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")
_CHOICES = "name 'packaged', or a folder with train and validation as .jsonl, .csv, .tsv or .parquet"


@dataclass(frozen=True)
class Row:
    """One example: a sentence or a pair, and the index of its class or its score."""

    first: str
    second: str | None
    label: float


@dataclass(frozen=True)
class Task:
    """A task with its splits.

    Attributes:
        name: as it was asked for, or the folder's.
        classes: their labels in the order of their indices; empty where labels are scores.
        splits: rows by the name of the split; "test" only where there is one.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Row]]

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores and not classes."""
        return not self.classes


def read_task(source: str, cache: Path) -> Task:
    """Reads a task whole.

    Args:
        source: `packaged`, or a folder with `train`, `validation` and optionally `test`, whose tables have
            the columns `sentence` (or `sentence1` and `sentence2`) and `label`.
        cache: where the packaged corpus is kept.

    Raises:
        BadInput: it cannot be scored on; says why in one sentence.
    """
    if source == "packaged":
        rows = {
            str(split): [Row(each.sentence, None, each.label) for each in examples]
            for split, examples in packaged_task(cache).items()
        }
        return Task("packaged", LIBRARIES, rows)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise BadInput(f"There is no folder {source}; {_CHOICES}.")
    tables = {split: _read(path) for split in SPLITS if (path := _file(folder, split)) is not None}
    classes = _classes(tables)
    return Task(
        folder.name, classes, {split: _rows(split, table, classes) for split, table in tables.items()}
    )


def _file(folder: Path, split: str) -> Path | None:
    found = [path for ending in ENDINGS if (path := folder / f"{split}{ending}").is_file()]
    if len(found) > 1:
        raise BadInput(f"{folder} has {found[0].name} and {found[1].name}; keep one of them.")
    if not found and split != "test":
        raise BadInput(
            f"{folder} has no {split} split; add {split}.jsonl, with a sentence and a label a line."
        )
    return found[0] if found else None


def _read(path: Path) -> pd.DataFrame:
    try:
        match path.suffix:
            case ".jsonl":
                return pd.read_json(path, lines=True, dtype=False)
            case ".parquet":
                return pd.read_parquet(path)
            case _:
                # an empty cell is no label, but the words "None" and "NA" are words
                separator = "\t" if path.suffix == ".tsv" else ","
                return pd.read_csv(path, sep=separator, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({reason(error)}); mend it, or save it as .jsonl.") from None


def _classes(tables: dict[str, pd.DataFrame]) -> tuple[str, ...]:
    """The classes of all splits, as the training split has them; none where labels are scores."""
    labels = {split: _labels(split, table) for split, table in tables.items()}
    if any(isinstance(label, float) and not label.is_integer() for each in labels.values() for label in each):
        _check_scores(labels)
        return ()
    names = {split: {_name(label) for label in each} for split, each in labels.items()}
    if len(names["train"]) < 2:
        raise BadInput(
            f"The train split has one class only, {names['train'].pop()!r}; add examples of another."
        )
    for split, found in names.items():
        if unknown := sorted(found - names["train"]):
            raise BadInput(
                f"The {split} split has the label {unknown[0]!r}, which train has not; mend one of them."
            )
    return tuple(sorted(names["train"], key=_order))


def _labels(split: str, table: pd.DataFrame) -> list[Any]:
    if "label" not in table:
        raise BadInput(
            f"The {split} split has no column 'label', but {', '.join(map(repr, table.columns))}; rename one."
        )
    if not len(table):
        raise BadInput(f"The {split} split is empty; add examples to it.")
    if missing := int(table["label"].isna().sum()):
        raise BadInput(
            f"The {split} split has {missing} of {len(table)} rows without a label; fill or remove them."
        )
    labels: list[Any] = table["label"].tolist()
    return labels


def _check_scores(labels: dict[str, list[Any]]) -> None:
    for split, each in labels.items():
        if words := [label for label in each if isinstance(label, str)]:
            raise BadInput(
                f"The {split} split has the label {words[0]!r} among scores; write every score as a number."
            )


def _name(label: Any) -> str:
    """One name for 1, 1.0 and "1", which tables of one task may have side by side."""
    if isinstance(label, str) and _is_fraction(label):
        raise BadInput(f"The label {label!r} is a score written as text; write scores as numbers.")
    return str(int(label)) if isinstance(label, float) else str(label)


def _is_fraction(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and not value.is_integer()


def _order(name: str) -> tuple[float, str]:
    """Numbers in their order, then words in theirs."""
    return (float(name), "") if name.lstrip("-").isdigit() else (math.inf, name)


def _rows(split: str, table: pd.DataFrame, classes: Sequence[str]) -> list[Row]:
    columns = _sentences(split, table)
    for column in columns:
        for row, text in enumerate(table[column], start=1):
            if not isinstance(text, str) or not text.strip():
                raise BadInput(
                    f"Row {row} of {split} has no text in {column!r}; fill it or take the row out."
                )
    index = {name: place for place, name in enumerate(classes)}
    labels = [index[_name(label)] if classes else float(label) for label in table["label"]]
    texts = [table[column].tolist() for column in columns]
    seconds: Sequence[str | None] = texts[1] if len(texts) > 1 else [None] * len(labels)
    return [Row(*each) for each in zip(texts[0], seconds, labels, strict=True)]


def _sentences(split: str, table: pd.DataFrame) -> tuple[str, ...]:
    for columns in (("sentence1", "sentence2"), ("sentence",)):
        if set(columns) <= set(table.columns):
            return columns
    raise BadInput(
        f"The {split} split has no column 'sentence', nor 'sentence1' and 'sentence2', but "
        f"{', '.join(map(repr, table.columns))}; rename them."
    )
