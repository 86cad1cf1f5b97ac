"""Which tables of a task are trained on and scored: by the split asked for, and by language."""

from __future__ import annotations

from dataclasses import dataclass

from kdnas_core.distillation.hub_texts import HUB
from kdnas_core.errors import BadInput
from kdnas_core.measure.task_labels import is_hidden
from kdnas_core.measure.task_sources import SCORABLE, TRAIN, Found, Splits, Table, quoted


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
