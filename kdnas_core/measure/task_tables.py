"""One local table of a task: its texts, which must be there, and its labels as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kdnas_core.errors import BadInput
from kdnas_core.measure.task_columns import Columns, read_columns
from kdnas_core.measure.task_sources import PAIRS, SCORABLE, Table, quoted, text_columns

_NUMBER = re.compile(r"[+-]?(nan|inf(inity)?|(0|[1-9]\d*)(\.\d*)?(e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)


def read_table(path: Path, where: str) -> Table:
    """The texts and labels of one file.

    Args:
        path: the file.
        where: what its split is called to the user.

    Raises:
        BadInput: it cannot be read, has not the columns, or a row has no text.
    """
    columns = read_columns(path)
    if not any(columns.values()):
        raise BadInput(f"The {where} split is empty; add examples to it.")
    names = _text_columns(where, list(columns))
    texts = [_texts(where, name, columns[name]) for name in names]
    labels = _labels(where, columns, has_types=path.suffix.lower() not in (".csv", ".tsv"))
    return Table(where, texts[0], texts[1] if names[1:] else None, labels)


def _text_columns(where: str, columns: list[str]) -> tuple[str, ...]:
    names = text_columns(columns)
    # a question or a sentence can stand alone, a side of another pair cannot
    for pair in PAIRS[:-1] if len(names) < 2 else ():
        if len(lone := set(pair) & set(columns)) == 1:
            raise BadInput(
                f"The {where} split has a column {lone.pop()!r} without the other of {pair[0]!r} and "
                f"{pair[1]!r}; add that one, or rename the first to 'sentence'."
            )
    if not names:
        raise BadInput(
            f"The {where} split has no column 'sentence', nor 'sentence1' and 'sentence2', but "
            f"{quoted(columns)}; rename them."
        )
    return names


def _labels(where: str, columns: Columns, has_types: bool) -> list[Any]:
    if "label" in columns:
        return columns["label"] if has_types else list(map(_number_or_word, columns["label"]))
    if where.rpartition("/")[2].startswith(SCORABLE[1]):  # those of a test are often kept back
        return [None] * len(next(iter(columns.values())))
    raise BadInput(f"The {where} split has no column 'label', but {quoted(list(columns))}; rename one.")


def _texts(where: str, column: str, values: list[Any]) -> list[str]:
    for row, text in enumerate(values, 1):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"Row {row} of {where} has no text in {column!r}; fill it or take the row out.")
    return [sound(text) for text in values]


def sound(text: str) -> str:
    """Without halves of characters, which JSON and names of files can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _number_or_word(cell: str) -> float | str:
    """What a cell of a table without types was meant as; 007 stays a word."""
    return float(cell) if _NUMBER.fullmatch(cell.strip()) else cell
