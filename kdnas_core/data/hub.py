"""Text from a data set of the Hugging Face hub, as a stream."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from kdnas_core.data.readers import reason
from kdnas_core.data.text_files import LOCAL, column_of_rows
from kdnas_core.errors import BadInput

logger = logging.getLogger(__name__)

HUB = "hub:"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SECONDS = 4.0  # timeout of one address of the hub; it has several, and all must fail within 20 seconds
_BUFFER = 10_000  # rows in the shuffle buffer of a stream


@dataclass(frozen=True)
class HubName:
    """The parts of `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`."""

    name: str
    config: str | None
    split: str
    column: str | None


def parse_hub(source: str) -> HubName:
    """Parses the name of a hub data set.

    Raises:
        BadInput: it is malformed.
    """
    name, config, split, column = [*source.removeprefix(HUB).split(":", 3), "", "", ""][:4]
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"'{source}' does not name a data set of the hub; write hub:NAME[:CONFIG[:SPLIT[:COLUMN]]], "
            "for instance hub:stanfordnlp/imdb."
        )
    return HubName(name, config or None, split or "train", column or None)


def read_hub(source: str, seed: int, progress: Callable[[str], None] | None) -> Iterator[Any]:
    """Yields the values of the text column, shuffled by the seed, and downloads them as they are taken.

    Raises:
        BadInput: the hub cannot be reached, or has no such data set, config, split or column.
    """
    wanted = parse_hub(source)
    (progress or logger.info)(f"Reading {wanted.name} from the Hugging Face hub")
    try:
        rows = iter(_stream(wanted, seed))
        head = list(islice(rows, 100))
        if wanted.column is None:
            yield from column_of_rows(chain(head, rows), head, source)
        else:
            _require_column(wanted.column, head, source)
            yield from (row[wanted.column] for row in chain(head, rows))
    except BadInput:
        raise
    except Exception as error:  # five libraries raise a dozen kinds: no network, config, split or answer
        logger.debug(f"{source} failed", exc_info=True)
        raise BadInput(
            f"{source} could not be read from the Hugging Face hub ({reason(error)}); it needs a network "
            f"and the right name, and without them name 'packaged' or {LOCAL}."
        ) from error


def _stream(wanted: HubName, seed: int) -> Iterable[dict[str, Any]]:
    import datasets
    import huggingface_hub

    # load_dataset retries an unreachable hub for half a minute; this request is sent once
    try:
        huggingface_hub.HfApi().dataset_info(wanted.name, timeout=_SECONDS)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise BadInput(
            f"The Hugging Face hub has no data set '{wanted.name}', or hides it; check the name, or name "
            f"'packaged' or {LOCAL}."
        ) from None
    stream = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split, streaming=True)
    rows: Iterable[dict[str, Any]] = stream.shuffle(seed=seed, buffer_size=_BUFFER)
    return rows


def _require_column(column: str, head: list[dict[str, Any]], source: str) -> None:
    names = list(head[0]) if head else [column]
    if column not in names:
        raise BadInput(f"{source} has no column '{column}'; name one of its columns ({', '.join(names)}).")
