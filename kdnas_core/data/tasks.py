"""Downstream tasks by name: the packaged one, one of a hub, or a local folder."""

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
from kdnas_core.data.tables import SCORABLE, TRAIN, Found, Splits, Table, quoted
from kdnas_core.data.task_files import find_folder
from kdnas_core.errors import BadInput

PACKAGED = "packaged"
ZERO_SHOT = " (zero-shot)"  # after it, where pairs are compared by their vectors alone
APART = " (apart)"  # after it, where the sentences of pairs are read each by itself
PROXY = " (proxy)"  # after the name of a task, where a score is of its proxy (`proxy_task.py`)


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
        name: "packaged", the folder's name, GLUE's own name of it ("sst2"), or the hub data set's without
            its owner.
        classes: their labels in the order of their indices; empty where labels are scores.
        splits: rows by the name of the split: "train", and all that can be scored.
        scored: which of these the task's score is the mean of: "validation" as a rule, both of MNLI's, or
            the languages of a task that has several.
        languages: of a task that has several, those of `scored`, the one trained on first; else empty.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Row]]
    scored: tuple[str, ...]
    languages: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores and not classes."""
        return not self.classes

    @property
    def is_pair(self) -> bool:
        """Whether an example is two texts; all are, or none."""
        return any(row.second is not None for rows in self.splits.values() for row in rows[:1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the classes, of the rows of all splits in their order, and of which are scored.

        The name is no part of it, though it decides by which metrics the task is scored.
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
    """Reads a task whole.

    Args:
        source: `packaged`; `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`, where CONFIG may be several languages, as
            en+de, and SPLIT stands for `split`; or a folder with `train`, `validation` and optionally
            `test`, or with one such folder a language, whose tables have the columns `sentence` (or
            `sentence1` and `sentence2`, or another public pair) and `label`.
        cache: where the packaged corpus is kept.
        split: which split is scored, "validation" or "test".
        train_language: of a task that has several, the one to train on; else the only one with a train
            split, else English, else the first by name; of a hub's, else the first named.

    Raises:
        BadInput: it cannot be scored on; says why in one sentence.
    """
    found = _find(source, cache)
    chosen = choose(source, found, wanted_split(source, split), train_language)
    train, tables = chosen.train, chosen.tables
    for table in tables.values():
        if (table.seconds is None) != (train.seconds is None):
            raise BadInput(f"One of {train.where} and {table.where} has pairs and the other not; mend one.")
    classes = classes_of(train, list(tables.values()), found.classes)
    splits = {
        name: _rows(table, indices_of(table, classes, found.classes))
        for name, table in {TRAIN: train, **tables}.items()
    }
    return Task(found.name, classes, splits, chosen.scored, chosen.languages)


def _find(source: str, cache: Path) -> Found:
    if source == PACKAGED:
        splits: Splits = {
            str(split): partial(_packaged, str(split), examples)
            for split, examples in packaged_task(cache).items()
        }
        return Found(PACKAGED, {"": splits}, classes=LIBRARIES)
    return find_hub(source) if source.startswith(HUB) else find_folder(source)


def _packaged(split: str, examples: list[Example]) -> Table:
    return Table(split, [each.sentence for each in examples], None, [each.label for each in examples])


def _rows(table: Table, labels: list[float]) -> list[Row]:
    seconds = table.seconds if table.seconds is not None else [None] * len(labels)
    return [Row(*each) for each in zip(table.firsts, seconds, labels, strict=True)]


@dataclass(frozen=True)
class Chosen:
    """The tables that a task is made of.

    Attributes:
        train: what is trained on.
        tables: all that can be scored on.
        scored: the names of those that are.
        languages: the same, where these are languages; else empty.
    """

    train: Table
    tables: dict[str, Table]
    scored: tuple[str, ...]
    languages: tuple[str, ...] = ()


def choose(source: str, found: Found, split: str, train_language: str | None) -> Chosen:
    """Reads the tables of a task that are needed.

    Args:
        source: what it was asked for by, for refusals.
        found: the task.
        split: which to score; "validation" also stands for several such as validation_matched.
        train_language: of a task that has several.

    Raises:
        BadInput: there is no such split or language, the split has no labels, or a table cannot be read.
    """
    if split == TRAIN:
        raise BadInput(f"The train split of {source} is for learning; score another, as {SCORABLE[0]}.")
    if "" not in found.languages:
        return _multilingual(source, found, split, train_language or found.train_language)
    if train_language:
        raise BadInput(
            f"The task {source} names no languages, so none can be trained on; leave {train_language} out."
        )
    return _plain(source, found.languages[""], split)


def _plain(source: str, splits: Splits, split: str) -> Chosen:
    if TRAIN not in splits:
        raise _no_split(source, TRAIN, splits)
    if not (asked := _named(splits, split)):
        raise _no_split(source, split, splits)
    train = splits[TRAIN]()
    names = dict.fromkeys([*asked, *(name for kind in SCORABLE for name in _named(splits, kind))])
    tables = {name: splits[name]() for name in names}
    open_to_all = {name: table for name, table in tables.items() if not is_hidden(table, train)}
    if kept_back := [name for name in asked if name not in open_to_all]:
        raise BadInput(
            f"The {kept_back[0]} split of {source} is without labels, so that nothing can be scored on it; "
            "add them, or score another split."
        )
    return Chosen(train, open_to_all, tuple(asked))


def _multilingual(source: str, found: Found, split: str, train_language: str) -> Chosen:
    languages = found.languages
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
    return Chosen(languages[train_language][TRAIN](), tables, scored, scored)


def _named(splits: Splits, kind: str) -> list[str]:
    """The split of a name; else all that add to it, as validation_matched does to validation."""
    return [kind] if kind in splits else [name for name in splits if name.startswith(f"{kind}_")]


def _no_split(source: str, split: str, splits: Splits) -> BadInput:
    if not source.startswith(HUB):
        advice = f"add {split}.jsonl, with a sentence and a label a line"
    elif split == TRAIN:
        advice = "name another data set or config"
    else:
        advice = "name the split to score, as hub:NAME:CONFIG:test, or another data set"
    return BadInput(f"The task {source} has no {split} split, but {quoted(list(splits))}; {advice}.")
