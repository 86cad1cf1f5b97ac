"""Downstream tasks: the packaged one, hub data sets and local folders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from kdnas_core.data.hub import HUB
from kdnas_core.data.hub_tasks import find_hub, wanted_split
from kdnas_core.data.labels import classes_of, indices_of, is_hidden
from kdnas_core.data.packaged_task import LIBRARIES, Example, packaged_task
from kdnas_core.data.retrieval import is_retrieval
from kdnas_core.data.tables import SCORABLE, TRAIN, Splits, Table, TaskSource, quoted
from kdnas_core.data.task_files import find_folder
from kdnas_core.errors import BadInput

PACKAGED = "packaged"
# Suffixes of a task's name in scores:
ZERO_SHOT = " (zero-shot)"  # by sentence vectors, without fine-tuning: similarity, retrieval
APART = " (apart)"  # the two sentences of a pair encoded separately
PROXY = " (proxy)"  # a score on the proxy of a task (`proxy_task.py`)


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
        name: "packaged", the folder's name, GLUE's name ("sst2"), or the hub data set's without its owner.
        classes: in the order of their indices; empty where labels are scores.
        splits: rows by split name: "train" and the splits that have labels.
        scored: the splits whose mean is the task's score: "validation" as a rule, both of MNLI's, or the
            languages of a multilingual task.
        languages: of a multilingual task, those of `scored`, the training language first; else empty.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Row]]
    scored: tuple[str, ...]
    languages: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores."""
        return not self.classes

    @property
    def is_pair(self) -> bool:
        """Whether examples are pairs of texts."""
        return any(row.second is not None for rows in self.splits.values() for row in rows[:1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the classes, the rows of all splits in order, and the names of the scored splits.

        The task's name is not included, though it decides the metrics.
        """
        digest = hashlib.sha256(json.dumps([self.classes, self.scored]).encode())
        for split, rows in sorted(self.splits.items()):
            digest.update(json.dumps([split, len(rows)]).encode())
            for row in rows:  # 1 and 1.0 are one label
                digest.update(json.dumps([row.first, row.second, float(row.label)]).encode())
        return digest.hexdigest()


def read_task(
    source: str, cache: Path, *, split: str = SCORABLE[0], train_language: str | None = None
) -> Task:
    """Reads a task.

    Args:
        source: `packaged`; `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`, where CONFIG may name several languages
            (en+de) and SPLIT replaces `split`; or a folder with `train`, `validation` and optionally `test`,
            or with one such folder a language, whose tables have the columns `sentence` (or `sentence1` and
            `sentence2`, or another public pair) and `label`.
        cache: folder of the packaged corpus.
        split: the split to score, "validation" or "test".
        train_language: the training language of a multilingual task. The default is the only one with a
            train split, else English, else the first by name; for a hub data set, the first named.

    Raises:
        BadInput: it cannot be scored on; says why in one sentence.
    """
    check_is_learnt(source)
    task = find_task(source, cache)
    chosen = choose(source, task, wanted_split(source, split), train_language)
    train, tables = chosen.train, chosen.tables
    for table in tables.values():
        if (table.seconds is None) != (train.seconds is None):
            raise BadInput(f"One of {train.where} and {table.where} has pairs and the other not; fix one.")
    classes = classes_of(train, list(tables.values()), task.classes)
    splits = {
        name: _rows(table, indices_of(table, classes, task.classes))
        for name, table in {TRAIN: train, **tables}.items()
    }
    return Task(task.name, classes, splits, chosen.scored, chosen.languages)


def check_is_learnt(source: str) -> None:
    """Refuses a retrieval task.

    Raises:
        BadInput: it is one.
    """
    if is_retrieval(source):
        raise BadInput(
            f"Nothing can be learnt from {source}, a task of retrieval; name one with train and validation."
        )


def find_task(source: str, cache: Path) -> TaskSource:
    """Returns a task whose tables are read when they are needed; arguments as for `read_task`.

    Raises:
        BadInput: there is no such task.
    """
    if source == PACKAGED:
        splits: Splits = {
            str(split): partial(_packaged, str(split), examples)
            for split, examples in packaged_task(cache).items()
        }
        return TaskSource(PACKAGED, {"": splits}, classes=LIBRARIES)
    return find_hub(source) if source.startswith(HUB) else find_folder(source)


def _packaged(split: str, examples: list[Example]) -> Table:
    return Table(split, [each.sentence for each in examples], None, [each.label for each in examples])


def _rows(table: Table, labels: list[float]) -> list[Row]:
    seconds = table.seconds if table.seconds is not None else [None] * len(labels)
    return [Row(*each) for each in zip(table.firsts, seconds, labels, strict=True)]


@dataclass(frozen=True)
class SelectedTables:
    """The tables of a task that are read.

    Attributes:
        train: the training split.
        tables: the splits with labels, by name.
        scored: the names of the splits to score.
        languages: equal to `scored` for a multilingual task; else empty.
    """

    train: Table
    tables: dict[str, Table]
    scored: tuple[str, ...]
    languages: tuple[str, ...] = ()


def choose(source: str, task: TaskSource, split: str, train_language: str | None) -> SelectedTables:
    """Reads the needed tables of a task.

    Args:
        source: for error messages.
        task: the task.
        split: the split to score; "validation" also stands for several such as validation_matched.
        train_language: the training language of a multilingual task.

    Raises:
        BadInput: there is no such split or language, the split has no labels, or a table cannot be read.
    """
    if split == TRAIN:
        raise BadInput(f"The train split of {source} is for learning; score another, as {SCORABLE[0]}.")
    if "" not in task.languages:
        return _multilingual(source, task, split, train_language or task.train_language)
    if train_language:
        raise BadInput(
            f"The task {source} names no languages, so none can be trained on; leave {train_language} out."
        )
    return _plain(source, task.languages[""], split)


def _plain(source: str, splits: Splits, split: str) -> SelectedTables:
    if TRAIN not in splits:
        raise _no_split(source, TRAIN, splits)
    if not (requested := _named(splits, split)):
        raise _no_split(source, split, splits)
    train = splits[TRAIN]()
    names = dict.fromkeys([*requested, *(name for kind in SCORABLE for name in _named(splits, kind))])
    tables = {name: splits[name]() for name in names}
    open_to_all = {name: table for name, table in tables.items() if not is_hidden(table, train)}
    if kept_back := [name for name in requested if name not in open_to_all]:
        raise BadInput(
            f"The {kept_back[0]} split of {source} is without labels, so that nothing can be scored on it; "
            "add them, or score another split."
        )
    return SelectedTables(train, open_to_all, tuple(requested))


def _multilingual(source: str, task: TaskSource, split: str, train_language: str) -> SelectedTables:
    languages = task.languages
    able = [name for name, splits in languages.items() if TRAIN in splits]
    if train_language not in able:
        raise BadInput(
            f"The task {source} has no train split in {train_language!r}; train on {quoted(able)}."
        )
    order = sorted(languages, key=lambda name: name != train_language)
    scored = tuple(name for name in order if split in languages[name])
    if not scored:
        raise BadInput(
            f"The task {source} has no {split} split in any of its languages; add one, or score another."
        )
    tables = {name: languages[name][split]() for name in scored}
    return SelectedTables(languages[train_language][TRAIN](), tables, scored, scored)


def _named(splits: Splits, kind: str) -> list[str]:
    """The split of that name; else all splits that extend it, as validation_matched extends validation."""
    return [kind] if kind in splits else [name for name in splits if name.startswith(f"{kind}_")]


def _no_split(source: str, split: str, splits: Splits) -> BadInput:
    if not source.startswith(HUB):
        advice = f"add {split}.jsonl, with a sentence and a label a line"
    elif split == TRAIN:
        advice = "name another data set or config"
    else:
        advice = "name the split to score, as hub:NAME:CONFIG:test, or another data set"
    return BadInput(f"The task {source} has no {split} split, but {quoted(list(splits))}; {advice}.")
