"""Tasks of the Hugging Face hub: GLUE, cross-lingual sets with a config a language, and others like them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from kdnas_core.data.hub import HUB, HubName, parse_hub
from kdnas_core.data.labels import HIDDEN
from kdnas_core.data.readers import reason
from kdnas_core.data.tables import TRAIN, Found, Splits, Table, quoted, text_columns
from kdnas_core.errors import BadInput

logger = logging.getLogger(__name__)

_SECONDS = 4.0  # to wait for the hub's first answer
_OTHERWISE = "name 'packaged' or a folder with train and validation"


def find_hub(source: str) -> Found:
    """The task of a hub data set; downloads it, or takes it from the cache of `datasets`.

    Args:
        source: `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`; a CONFIG such as en+de is several, each a language; a
            COLUMN such as title+content is two, for pairs.

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
        return Found(_name(wanted), {"": next(iter(languages.values()))}, classes=classes)
    return Found(_name(wanted), languages, next(iter(languages)), classes)


def wanted_split(source: str, split: str) -> str:
    """The split that the name of a hub data set asks to score, else the one that was asked for."""
    named = parse_hub(source).split if source.startswith(HUB) else TRAIN
    return split if named == TRAIN else named  # train is what an empty place stands for


def _name(wanted: HubName) -> str:
    name = wanted.name.rpartition("/")[2]
    return wanted.config if wanted.config and name == "glue" else name


def _configs(source: str, wanted: HubName) -> list[str | None]:
    configs: list[str | None] = [*wanted.config.split("+")] if wanted.config else [None]
    if "" in configs or len(set(configs)) < len(configs):
        raise BadInput(f"'{source}' names a language twice, or none beside a '+'; name each once, as en+de.")
    return configs


def _check_hub(source: str, name: str) -> None:
    # load_dataset repeats for half a minute what cannot be reached; this asks once
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # load_dataset then asks nobody, and looks in its cache
        return
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_SECONDS)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise BadInput(
            f"The Hugging Face hub has no data set '{name}', or hides it; check the name, or {_OTHERWISE}."
        ) from None
    except Exception as error:  # no network, no answer, an answer that is none: of three libraries
        raise _unreadable(source, error) from error


def _load(source: str, name: str, config: str | None) -> Mapping[str, Any]:
    """All splits of one config."""
    import datasets

    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(name, config)
    except Exception as error:  # a dozen kinds, of five libraries: no config, no file that it can read
        raise _unreadable(source, error) from error
    return loaded


def _unreadable(source: str, error: Exception) -> BadInput:
    logger.debug(f"{source} failed", exc_info=error)
    return BadInput(
        f"The task {source} could not be read from the Hugging Face hub ({reason(error)}); it needs a "
        f"network and the right name, and without them {_OTHERWISE}."
    )


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
