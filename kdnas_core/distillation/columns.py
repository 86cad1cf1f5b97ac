"""What reading a local table and reading one of a hub have in common: which column holds the text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdnas_core.errors import BadInput


def column_of_rows(rows: Iterable[dict[str, Any]], head: list[dict[str, Any]], source: str) -> Iterable[Any]:
    """The values of the text column of rows, which the first of them (`head`) tell.

    Raises:
        BadInput: as `text_column`.
    """
    names = list(dict.fromkeys(name for row in head for name in row))
    strings = [name for name in names if any(isinstance(row.get(name), str) for row in head)]
    column = text_column(names, strings, source)
    return (row.get(column) for row in rows)


def text_column(names: list[str], strings: list[str], source: str) -> str:
    """The column `text`, else `sentence`, else the only one of strings.

    Args:
        names: all columns.
        strings: those of them that hold strings.
        source: the table's name, for the refusal.

    Raises:
        BadInput: none of these can be told.
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


def reason(error: Exception) -> str:
    """The message of an error as part of one sentence."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200].rstrip(".").replace(". ", "; ")
