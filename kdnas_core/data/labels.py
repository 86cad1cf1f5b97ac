"""The labels of a task: classes or scores, and the check that they are one of these."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from kdnas_core.data.tables import Table
from kdnas_core.errors import BadInput

HIDDEN = -1  # the label in public test splits whose labels are withheld


def is_hidden(table: Table, train: Table) -> bool:
    """Returns whether a split has no labels, so that it cannot be scored on."""
    if all(_is_missing(label) for label in table.labels):
        return True
    return _all_kept_back(table) and not any(label == HIDDEN for label in train.labels)


def _all_kept_back(table: Table) -> bool:
    return all(_is_number(label) and label == HIDDEN for label in table.labels)


def classes_of(train: Table, others: Sequence[Table], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the classes of all splits; none where labels are scores.

    Args:
        train: the training split.
        others: the splits to score on.
        declared: the classes that the data declares, in its order; else empty.

    Raises:
        BadInput: labels are missing, are neither classes nor scores, or differ between splits.
    """
    tables = (train, *others)
    for table in tables:
        _check(table)
    if not declared and any(_is_fraction(label) for table in tables for label in table.labels):
        _check_scores(tables)
        return ()
    classes = set(names_of(train, declared))
    if len(classes) < 2:
        raise BadInput(
            f"The {train.where} split has one class only, {classes.pop()[:60]!r}; add examples of another."
        )
    for table in others:
        _check_known(table, declared, set(declared) or classes, train.where)
    return declared or tuple(sorted(classes, key=_order))


def indices_of(table: Table, classes: Sequence[str], declared: tuple[str, ...]) -> list[float]:
    """Returns labels as indices of their classes; scores unchanged.

    Args:
        table: checked by `classes_of`.
        classes: returned by `classes_of`.
        declared: as for `classes_of`.
    """
    if not classes:
        return [float(label) for label in table.labels]
    index = {name: place for place, name in enumerate(classes)}
    return [index[name] for name in names_of(table, declared)]


def names_of(table: Table, declared: tuple[str, ...]) -> list[str]:
    """Returns the class of each row.

    Raises:
        BadInput: a label is not the index of a declared class, or is a score written as text.
    """
    if not declared:
        return [_name(label) for label in table.labels]
    if strangers := [label for label in table.labels if label not in range(len(declared))]:
        raise BadInput(
            f"The {table.where} split has the label {strangers[0]}, but classes 0 to {len(declared) - 1}; "
            "fix its labels, or name another data set."
        )
    return [declared[label] for label in table.labels]


def _check(table: Table) -> None:
    if not table.labels:
        raise BadInput(f"The {table.where} split is empty; add examples to it.")
    if missing := sum(map(_is_missing, table.labels)):
        raise BadInput(
            f"The {table.where} split has {missing} of {len(table.labels)} rows without a label; fill or "
            "remove them."
        )
    for row, label in enumerate(table.labels, 1):
        if problem := _problem(label):
            raise BadInput(f"Row {row} of {table.where} has {problem}.")


def _problem(label: Any) -> str:
    """Describes what makes a label invalid; empty if it is valid."""
    if isinstance(label, bool):
        return f"the label {str(label).lower()}; write 0 and 1, or a word for each class"
    if isinstance(label, str):
        return ""
    if not _is_number(label):
        return f"a label that is a {type(label).__name__}; write one word or one number"
    if not math.isfinite(label):
        return "an infinite label; write a number that is finite"
    return ""


def _is_missing(label: Any) -> bool:
    return (
        label is None
        or (isinstance(label, float) and math.isnan(label))
        or (isinstance(label, str) and not label.strip())
    )


def _is_number(label: Any) -> bool:
    return isinstance(label, int | float) and not isinstance(label, bool)


def _is_fraction(label: Any) -> bool:
    return isinstance(label, float) and not label.is_integer()


def _check_scores(tables: Sequence[Table]) -> None:
    for table in tables:
        if words := [label for label in table.labels if isinstance(label, str)]:
            raise BadInput(
                f"The {table.where} split has the label {words[0][:60]!r} among scores; write every score as "
                "a number."
            )
    if len(set(tables[0].labels)) < 2:
        raise BadInput(
            f"The {tables[0].where} split has one score only, {tables[0].labels[0]}; add examples of others."
        )


def _check_known(table: Table, declared: tuple[str, ...], known: set[str], train: str) -> None:
    if unknown := sorted(set(names_of(table, declared)) - known):
        raise BadInput(
            f"The {table.where} split has the label {unknown[0][:60]!r}, which {train} lacks; fix one of "
            "them."
        )


def _name(label: Any) -> str:
    """One name for 1, 1.0, "1" and "1.0", which the tables of one task may mix."""
    if not isinstance(label, str):
        return str(int(label))
    word = label.strip()
    if re.fullmatch(r"-?\d*\.\d+", word) and not float(word).is_integer():
        raise BadInput(f"The label {word[:60]!r} is a score written as text; write scores as numbers.")
    return re.sub(r"(?<=\d)\.0+$", "", word) if re.fullmatch(r"-?\d+\.0+", word) else word


def _order(name: str) -> tuple[float, str]:
    """Sort key: numbers in their order, then words in theirs."""
    return (float(name), "") if re.fullmatch(r"-?\d+", name) else (math.inf, name)
