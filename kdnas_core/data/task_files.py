"""Tasks of local folders: one table a split, or one such folder a language."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from kdnas_core.data.readers import ENDINGS, Columns, read_columns
from kdnas_core.data.tables import PAIRS, SCORABLE, TRAIN, Splits, Table, TaskSource, quoted, text_columns
from kdnas_core.errors import BadInput

_CHOICES = (
    "name 'packaged', hub:NAME[:CONFIG], or a folder with train and validation as "
    ".jsonl, .csv, .tsv or .parquet"
)
_SPLIT = re.compile(rf"{TRAIN}|({'|'.join(SCORABLE)})(_\w+)?")  # validation_matched is one of two
_ENGLISH = ("en", "english")

_NUMBER = re.compile(r"[+-]?(nan|inf(inity)?|(0|[1-9]\d*)(\.\d*)?(e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)


def find_folder(source: str) -> TaskSource:
    """Returns the task of a folder: its own splits, or those of its subfolders, one a language.

    Raises:
        BadInput: there is no such folder, or it does not hold a task.
    """
    folder = _folder(source)
    splits, languages = _splits(folder, ""), _languages(folder)
    if languages and not {TRAIN, SCORABLE[0]} <= set(splits):
        if splits:
            raise BadInput(
                f"The task {source} has the split {next(iter(splits))} beside folders of languages; move it "
                "into the folder of its own language."
            )
        return TaskSource(_name(folder), languages, _train_language(source, languages))
    return TaskSource(_name(folder), {"": splits})


def _folder(source: str) -> Path:
    try:
        folder = Path(source).expanduser()
        is_folder, exists = bool(source) and folder.is_dir(), folder.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL byte
        is_folder = exists = False
    if not is_folder and exists and source:
        raise BadInput(f"The task {source} is a file; name the folder that holds its splits.")
    if not is_folder:
        raise BadInput(f"There is no folder {source[:200]!r}; {_CHOICES}.")
    return folder


def _name(folder: Path) -> str:
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    return sound(name)


def _languages(folder: Path) -> dict[str, Splits]:
    """The subfolders that hold splits."""
    inner = [path for path in _listed(folder) if path.is_dir() and not path.name.startswith(".")]
    by_folder = {sound(path.name): _splits(path, f"{sound(path.name)}/") for path in inner}
    languages = {name: splits for name, splits in by_folder.items() if splits}
    if TRAIN in languages:
        raise BadInput(f"The folder {folder} has a folder 'train', which no language is called; rename it.")
    return languages


def _train_language(source: str, languages: dict[str, Splits]) -> str:
    able = [name for name, splits in languages.items() if TRAIN in splits]
    if not able:
        raise BadInput(
            f"The task {source} has no train split in any of its languages; add one, as en/train.jsonl."
        )
    return next((name for name in able if name.lower() in _ENGLISH), able[0])


def _splits(folder: Path, prefix: str) -> Splits:
    paths: dict[str, Path] = {}
    for path in _listed(folder):
        split = path.stem
        if path.suffix.lower() not in ENDINGS or not _SPLIT.fullmatch(split) or not path.is_file():
            continue
        if split in paths:
            raise BadInput(f"The folder {folder} has {paths[split].name} and {path.name}; keep one of them.")
        paths[split] = path
    return {split: partial(read_table, path, f"{prefix}{split}") for split, path in paths.items()}


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(
            f"The folder {folder} cannot be read ({error.strerror}); fix that, or name another."
        ) from None


def read_table(path: Path, where: str) -> Table:
    """Reads the texts and labels of one file.

    Args:
        path: the file.
        where: the name of its split in messages.

    Raises:
        BadInput: it cannot be read, lacks a column, or a row has no text.
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
    # a question or a sentence can be a single text, one side of another pair cannot
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
    if where.rpartition("/")[2].startswith(SCORABLE[1]):  # test labels are often withheld
        return [None] * len(next(iter(columns.values())))
    raise BadInput(f"The {where} split has no column 'label', but {quoted(list(columns))}; rename one.")


def _texts(where: str, column: str, values: list[Any]) -> list[str]:
    for row, text in enumerate(values, 1):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"Row {row} of {where} has no text in {column!r}; fill it or take the row out.")
    return [sound(text) for text in values]


def sound(text: str) -> str:
    """Replaces lone surrogates, which JSON and file names can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _number_or_word(cell: str) -> float | str:
    """The number that a cell of an untyped table stands for, else its text; 007 stays text."""
    return float(cell) if _NUMBER.fullmatch(cell.strip()) else cell
