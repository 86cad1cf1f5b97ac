"""Reads the columns of a local .jsonl, .csv, .tsv or .parquet file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from kdnas_core.errors import BadInput

ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")

Columns = dict[str, list[Any]]


def read_columns(path: Path) -> Columns:
    """Reads all columns of a file by name; a field that a row lacks is None.

    Cells of .csv and .tsv are text. A byte order mark and Windows line ends are dropped.

    Raises:
        BadInput: it cannot be read; says why.
    """
    try:
        match path.suffix.lower():
            case ".jsonl":
                return _from_jsonl(path)
            case ".parquet":
                return _from_parquet(path)
            case ending:
                return _from_csv(path, "\t" if ending == ".tsv" else ",")
    except BadInput:
        raise
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are OSError or ValueError
        raise BadInput(
            f"The file {path} cannot be read ({reason(error)}); fix it, or save it as .jsonl."
        ) from None


def lines_of(path: Path) -> list[str]:
    """Returns the lines of a UTF-8 file, with or without a byte order mark."""
    # not splitlines(), which also splits at characters that a text may hold
    return path.read_text("utf-8-sig").split("\n")


def _from_jsonl(path: Path) -> Columns:
    rows = [object_on(path, number, line) for number, line in enumerate(lines_of(path), 1) if line.strip()]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def object_on(path: Path, number: int, line: str) -> dict[str, Any]:
    """Returns the JSON object on a line of a file.

    Raises:
        BadInput: there is none.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise BadInput(
            f"The file {path} cannot be read: line {number} is not a JSON object; write one object a line."
        )
    return row


def _from_csv(path: Path, separator: str) -> Columns:
    # not pandas, which reads an unnamed first column as an index and some words as missing values
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        names = next(reader, [])
        rows = [_cells(path, reader.line_num, row, names) for row in reader if row]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise BadInput(f"The file {path} has two columns {twice[0]!r}; keep one of them.")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _cells(path: Path, line: int, row: list[str], names: list[str]) -> list[str]:
    if len(row) != len(names):
        raise BadInput(
            f"The file {path} has {len(row)} cells on line {line} under {len(names)} columns; put a text "
            "that holds the separator in double quotes."
        )
    return row


def _from_parquet(path: Path) -> Columns:
    import pyarrow.parquet

    # ParquetFile, since read_table would add columns for folders named as partitions
    columns: Columns = pyarrow.parquet.ParquetFile(path).read().to_pydict()
    return columns


def reason(error: Exception) -> str:
    """Returns the message of an error as part of one sentence."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200].rstrip(".").replace(". ", "; ")
