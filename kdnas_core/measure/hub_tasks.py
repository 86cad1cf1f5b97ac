"""Tasks of the Hugging Face hub: GLUE, cross-lingual sets with a config a language, and others like them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kdnas_core.distillation.columns import reason
from kdnas_core.distillation.hub_texts import HUB, HubName, parse_hub
from kdnas_core.errors import BadInput
from kdnas_core.measure.hub_tables import declared_classes, splits_of
from kdnas_core.measure.task_sources import TRAIN, Found

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
