"""The texts of a task as a corpus: those of its training splits are learnt, all others are held out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdnas_core.data.hub import HUB, parse_hub
from kdnas_core.data.labels import is_hidden
from kdnas_core.data.packaged_task import judged_paragraphs
from kdnas_core.data.tables import SCORABLE, TRAIN, Splits, Table, TaskSource
from kdnas_core.data.task_files import find_folder
from kdnas_core.data.tasks import PACKAGED, check_is_learnt, find_task
from kdnas_core.errors import BadInput

TASK = "task:"  # before the name of a task that is named as a corpus


def check_task(source: str) -> None:
    """Checks the name of a task without reading a table or using the network.

    Args:
        source: as for `tasks.read_task`.

    Raises:
        BadInput: it is of no known kind, of retrieval, or a folder without a training split.
    """
    check_is_learnt(source)
    if source.startswith(HUB):
        parse_hub(source)
    elif source != PACKAGED:
        _training(source, find_folder(source))


def learnt_texts(source: str, cache: Path) -> list[str]:
    """Returns the texts of a task's training splits, of all its languages; each sentence of a pair is one.

    Args:
        source: as for `tasks.read_task`.
        cache: folder of the packaged corpus.

    Raises:
        BadInput: the task cannot be read, is of retrieval, or has no training split.
    """
    check_is_learnt(source)
    return list(_texts(splits[TRAIN]() for splits in _training(source, find_task(source, cache))))


def judged_texts(source: str, cache: Path) -> list[str]:
    """Returns the texts of all rows of a task that can be scored: those of validation and test with labels.

    Args:
        source, cache: as for `learnt_texts`.

    Raises:
        BadInput: as `learnt_texts`.
    """
    task = find_task(source, cache)
    tables: list[Table] = []
    for splits in task.languages.values():
        train = splits[TRAIN]() if TRAIN in splits else None
        scorable = [read() for split, read in splits.items() if split.startswith(SCORABLE)]
        tables += [table for table in scorable if train is None or not is_hidden(table, train)]
    # the packaged task masks names in its paragraphs
    return [*_texts(tables), *(judged_paragraphs(cache) if source == PACKAGED else [])]


def _training(source: str, task: TaskSource) -> list[Splits]:
    """The languages that have a training split."""
    able = [splits for splits in task.languages.values() if TRAIN in splits]
    if not able:
        raise BadInput(f"The task {source} has no train split, so nothing can be learnt from its text.")
    return able


def _texts(tables: Iterable[Table]) -> Iterable[str]:
    for table in tables:
        yield from table.firsts
        yield from table.seconds or ()
