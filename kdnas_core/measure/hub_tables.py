"""A data set of the Hugging Face hub as tables of a task: which columns, which labels, which classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from kdnas_core.errors import BadInput
from kdnas_core.measure.task_labels import HIDDEN
from kdnas_core.measure.task_sources import TRAIN, Splits, Table, quoted, text_columns

logger = logging.getLogger(__name__)


def declared_classes(source: str, loaded: Mapping[str | None, Mapping[str, Any]]) -> tuple[str, ...]:
    """The classes that the data's features name, in the order of its indices; none where they do not.

    Args:
        source: what was asked for, for the refusal.
        loaded: splits by config.

    Raises:
        BadInput: configs have different ones.
    """
    declared = {
        config: _classes(next(iter(splits.values())).features.get("label"))
        for config, splits in loaded.items()
    }
    if len(set(declared.values())) > 1:
        raise BadInput(
            f"The configs of {source} have different classes; name only such as are one task in several "
            "languages."
        )
    return next(iter(declared.values()))


def _classes(feature: Any) -> tuple[str, ...]:
    import datasets

    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def splits_of(source: str, splits: Mapping[str, Any], column: str | None, prefix: str) -> Splits:
    """Readers of the splits of one config.

    Args:
        source: what was asked for, for refusals.
        splits: data sets by the name of the split.
        column: that which holds the text, or two with a "+" between them; None to find out.
        prefix: what the names of splits begin with in refusals.
    """
    return {
        str(split): partial(_table, source, rows, column, f"{prefix}{split}")
        for split, rows in splits.items()
    }


def _table(source: str, rows: Any, column: str | None, where: str) -> Table:
    columns = _text_columns(source, rows.features, column)
    _check_label(source, rows.features, where)
    values = rows.select_columns([name for name in (*columns, "label") if name in rows.features]).to_dict()
    # a few rows of public sets have no text on one side: that is how everyone is scored on them
    texts = [[text or "" for text in values[name]] for name in columns]
    labels = values.get("label", [None] * len(texts[0]))
    if _classes(rows.features.get("label")):
        texts, labels = _with_a_class(texts, labels, where)
    return Table(where, texts[0], texts[1] if columns[1:] else None, labels)


def _with_a_class(
    texts: list[list[str]], labels: list[int | None], where: str
) -> tuple[list[list[str]], list[int | None]]:
    """Without the rows on whose class people did not agree, as everyone leaves them out, unless all are."""
    kept = [row for row, label in enumerate(labels) if label not in (None, HIDDEN)]
    if not kept:
        return texts, [None] * len(labels)
    if len(kept) < len(labels):
        logger.info(f"Leaving {len(labels) - len(kept)} rows of {where} out, which have no class")
    return [[column[row] for row in kept] for column in texts], [labels[row] for row in kept]


def _check_label(source: str, features: Mapping[str, Any], where: str) -> None:
    if "label" not in features and where.rpartition("/")[2] == TRAIN:
        raise BadInput(
            f"The task {source} has no column 'label', but {quoted(list(features))}; name another data "
            "set, or save it as a folder with train and validation."
        )


def _text_columns(source: str, features: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
    """Those named; else a pair, `sentence` or `text`; else the only one that holds text."""
    strings = [name for name, feature in features.items() if _is_text(feature) and name != "label"]
    columns = tuple(column.split("+")) if column else text_columns(list(features))
    if not columns:
        columns = ("text",) if "text" in strings else tuple(strings) if len(strings) == 1 else ()
    if not columns or len(columns) > 2 or not set(columns) <= set(strings):
        problem = f"not in {quoted(columns)}" if column else "and which is meant cannot be told"
        raise BadInput(
            f"The task {source} has text in {quoted(strings)}, {problem}; name one, or two of a pair, as "
            f"hub:NAME:CONFIG::{'+'.join(strings[:2]) or 'COLUMN'}."
        )
    return columns


def _is_text(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
