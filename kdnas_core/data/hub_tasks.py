"""Tasks of the Hugging Face hub: GLUE, cross-lingual data sets with one config a language, and others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from kdnas_core.data.hub import HUB, HubName, parse_hub
from kdnas_core.data.labels import HIDDEN
from kdnas_core.data.readers import reason
from kdnas_core.data.tables import TRAIN, Splits, Table, TaskSource, quoted, text_columns
from kdnas_core.errors import BadInput

logger = logging.getLogger(__name__)

_SECONDS = 4.0  # timeout of the hub's first answer
_OTHERWISE = "name 'packaged' or a folder with train and validation"


def find_hub(source: str) -> TaskSource:
    """Loads the task of a hub data set, downloaded or from the cache of `datasets`.

    Args:
        source: `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`; a CONFIG such as en+de names several languages, a COLUMN
            such as title+content the two columns of pairs.

    Raises:
        BadInput: the hub cannot be reached, or has no such data set, config or column.
    """
    wanted = parse_hub(source)
    configs = _configs(source, wanted)
    _check_hub(source, wanted.name)
    loaded = {config: _load(source, wanted.name, config) for config in configs}
    classes = declared_classes(source, loaded)
    several = len(configs) > 1
    languages = {
        config or "": splits_of(source, splits, wanted.column, f"{config}/" if several else "")
        for config, splits in loaded.items()
    }
    if not several:
        return TaskSource(_name(wanted), {"": next(iter(languages.values()))}, classes=classes)
    return TaskSource(_name(wanted), languages, next(iter(languages)), classes)


def wanted_split(source: str, split: str) -> str:
    """Returns the split that a hub source names for scoring, else `split`."""
    named = parse_hub(source).split if source.startswith(HUB) else TRAIN
    return split if named == TRAIN else named  # an empty SPLIT is parsed as train


def _name(wanted: HubName) -> str:
    name = wanted.name.rpartition("/")[2]
    return wanted.config if wanted.config and name == "glue" else name


def _configs(source: str, wanted: HubName) -> list[str | None]:
    configs: list[str | None] = [*wanted.config.split("+")] if wanted.config else [None]
    if "" in configs or len(set(configs)) < len(configs):
        raise BadInput(f"'{source}' names a language twice, or none beside a '+'; name each once, as en+de.")
    return configs


def _check_hub(source: str, name: str) -> None:
    # load_dataset retries an unreachable hub for half a minute; this request is sent once
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # load_dataset then reads only its cache
        return
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_SECONDS)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise BadInput(
            f"The Hugging Face hub has no data set '{name}', or hides it; check the name, or {_OTHERWISE}."
        ) from None
    except Exception as error:  # three libraries raise their own kinds: no network, no or no valid answer
        raise _unreadable(source, error) from error


def _load(source: str, name: str, config: str | None) -> Mapping[str, Any]:
    """All splits of one config."""
    import datasets

    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(name, config)
    except Exception as error:  # five libraries raise a dozen kinds: no config, no readable file
        raise _unreadable(source, error) from error
    return loaded


def _unreadable(source: str, error: Exception) -> BadInput:
    logger.debug(f"{source} failed", exc_info=error)
    return BadInput(
        f"The task {source} could not be read from the Hugging Face hub ({reason(error)}); it needs a "
        f"network and the right name, and without them {_OTHERWISE}."
    )


def declared_classes(source: str, loaded: Mapping[str | None, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the classes that the data's features declare, in the order of their indices, if any.

    Args:
        source: for the error message.
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
    """Returns readers of the splits of one config.

    Args:
        source: for error messages.
        splits: data sets by split name.
        column: the text column, or two joined by "+"; None to detect it.
        prefix: of the split names in error messages.
    """
    return {
        str(split): partial(_table, source, rows, column, f"{prefix}{split}")
        for split, rows in splits.items()
    }


def _table(source: str, rows: Any, column: str | None, where: str) -> Table:
    columns = _text_columns(source, rows.features, column)
    _check_label(source, rows.features, where)
    values = rows.select_columns([name for name in (*columns, "label") if name in rows.features]).to_dict()
    # a few rows of public data sets have no text on one side, and published scores include them
    texts = [[text or "" for text in values[name]] for name in columns]
    labels = values.get("label", [None] * len(texts[0]))
    if _classes(rows.features.get("label")):
        texts, labels = _with_a_class(texts, labels, where)
    return Table(where, texts[0], texts[1] if columns[1:] else None, labels)


def _with_a_class(
    texts: list[list[str]], labels: list[int | None], where: str
) -> tuple[list[list[str]], list[int | None]]:
    """Drops rows without a class (annotators did not agree), as is usual; keeps all if no row has one."""
    kept = [row for row, label in enumerate(labels) if label not in (None, HIDDEN)]
    if not kept:
        return texts, [None] * len(labels)
    if len(kept) < len(labels):
        logger.info(f"Leaving out {len(labels) - len(kept)} rows of {where}, which have no class")
    return [[column[row] for row in kept] for column in texts], [labels[row] for row in kept]


def _check_label(source: str, features: Mapping[str, Any], where: str) -> None:
    if "label" not in features and where.rpartition("/")[2] == TRAIN:
        raise BadInput(
            f"The task {source} has no column 'label', but {quoted(list(features))}; name another data "
            "set, or save it as a folder with train and validation."
        )


def _text_columns(source: str, features: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
    """The named columns; else a pair, `sentence` or `text`; else the only column of text."""
    strings = [name for name, feature in features.items() if _is_text(feature) and name != "label"]
    columns = tuple(column.split("+")) if column else text_columns(list(features))
    if not columns:
        columns = ("text",) if "text" in strings else tuple(strings) if len(strings) == 1 else ()
    if not columns or len(columns) > 2 or not set(columns) <= set(strings):
        problem = f"not in {quoted(columns)}" if column else "and the right one is unclear"
        raise BadInput(
            f"The task {source} has text in {quoted(strings)}, {problem}; name one, or two of a pair, as "
            f"hub:NAME:CONFIG::{'+'.join(strings[:2]) or 'COLUMN'}."
        )
    return columns


def _is_text(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
