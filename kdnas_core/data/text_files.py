"""Text from a local file: lines, or the text column of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdnas_core.data import readers
from kdnas_core.data.readers import lines_of, read_columns, reason
from kdnas_core.errors import BadInput

ENDINGS = (".txt", *readers.ENDINGS)
LOCAL = "the path of a local .txt, .jsonl, .csv, .tsv or .parquet file"

_NUMBER = re.compile(r"[+-]?(\d[\d_,]*)?\.?\d*([eE][+-]?\d+)?")


def check_file(path: Path) -> None:
    """Checks, without reading a table, that `read_file` can read a file.

    Raises:
        BadInput: it is missing, has another ending, is empty, binary or not UTF-8.
        OSError: the operating system refuses to read it.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist; check the path.")
    if not path.is_file():
        raise BadInput(f"{path} is not a file; name {LOCAL}.")
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(f"{path} has an ending that is not known; name {LOCAL}.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty; name a file that holds text.")
    if path.suffix.lower() == ".parquet":
        _check_parquet(path)
    else:
        _check_utf8(path)


def read_file(path: Path) -> Iterable[Any]:
    """Returns the lines of a text file, or the values of a table's text column.

    Raises:
        BadInput: it cannot be read; says why.
    """
    if path.suffix.lower() != ".txt":
        return _from_table(path)
    try:
        return lines_of(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({reason(error)}); fix it, or save it in UTF-8.") from None


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise BadInput(f"{path} is not a Parquet file; save it as one.")


def _check_utf8(path: Path) -> None:
    offset = 0
    with path.open("rb") as file:
        if b"\0" in file.read(65_536):
            raise BadInput(f"{path} is binary; save it as text in UTF-8.")
        file.seek(0)
        for number, line in enumerate(file, 1):  # no byte of a UTF-8 sequence is a line feed
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"byte {offset + error.start}, on line {number},"
                raise BadInput(f"{path} is not UTF-8: {place} is not; save it as UTF-8.") from None
            offset += len(line)


def _from_table(path: Path) -> Iterable[Any]:
    columns = read_columns(path)
    if path.suffix.lower() in (".csv", ".tsv"):  # untyped: a column of numbers is no text
        columns = {name: [_text(cell) for cell in cells] for name, cells in columns.items()}
    strings = [name for name, cells in columns.items() if any(isinstance(cell, str) for cell in cells)]
    return columns[text_column(list(columns), strings, str(path))]


def _text(cell: str) -> str | None:
    return cell if cell.strip() and not _NUMBER.fullmatch(cell.strip()) else None


def column_of_rows(rows: Iterable[dict[str, Any]], head: list[dict[str, Any]], source: str) -> Iterable[Any]:
    """Returns the values of the rows' text column, detected from their first rows, `head`.

    Raises:
        BadInput: as `text_column`.
    """
    names = list(dict.fromkeys(name for row in head for name in row))
    strings = [name for name in names if any(isinstance(row.get(name), str) for row in head)]
    column = text_column(names, strings, source)
    return (row.get(column) for row in rows)


def text_column(names: list[str], strings: list[str], source: str) -> str:
    """Returns the column `text`, else `sentence`, else the only column of strings.

    Args:
        names: all columns.
        strings: the columns of strings.
        source: the table's name for the error message.

    Raises:
        BadInput: there is no such column.
    """
    for name in ("text", "sentence"):
        if name in names:
            return name
    if len(strings) == 1:
        return strings[0]
    columns = ", ".join(f"'{name}'" for name in names) or "none"
    raise BadInput(
        f"{source} has no column 'text' or 'sentence', but {columns}; rename one of them to 'text'."
    )
