"""Text by name: the packaged corpus, a data set of the Hugging Face hub, or local files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from kdnas_core.distillation.harvest import harvest
from kdnas_core.distillation.hub_texts import HUB, parse_hub, read_hub
from kdnas_core.distillation.parts import PACKAGED, parts_of
from kdnas_core.distillation.text_files import ENDINGS, LOCAL, check_file, read_file
from kdnas_core.errors import BadInput


def check_corpus(source: str) -> None:
    """Refuses early, without reading a table or asking a network, what could not be read.

    Args:
        source: plain, as `read_corpus` takes it; a folder with one file a language; or several of these with
            " + " between them.

    Raises:
        BadInput: the source is of no kind, a hub name is malformed, a file is missing, empty, binary or not
            UTF-8, or its parts are not as `parts.parts_of` wants them.
    """
    for part in parts_of(source):
        _check_plain(part.source)


def read_corpus(
    source: str, cache: Path, seed: int, limit: int, progress: Callable[[str], None] | None = None
) -> list[str]:
    """Up to `limit` different texts of a plain source, chosen by a shuffle that the seed determines.

    `source` is `packaged`, `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]` or the path of a file; the column of a table
    is `text`, else `sentence`, else its only column of strings. The packaged corpus is kept in `cache`; the
    hub keeps to its own. Of a hub data set no more is downloaded than a shuffled stream of `limit` texts
    takes. `mixture.read_texts` reads several sources at once.

    Raises:
        BadInput: the source cannot be read, or holds no text.
    """
    _check_plain(source)
    if source.startswith(HUB):
        texts = list(islice(_usable(read_hub(source, seed, progress)), limit))
    else:
        texts = list(_usable(_from_disk(source, cache, progress)))
        random.Random(seed).shuffle(texts)
    if not texts:
        raise BadInput(f"{source} holds no text; name a corpus that does, for instance 'packaged'.")
    return texts[:limit]


def _check_plain(source: str) -> None:
    if source == PACKAGED:
        return
    if source.startswith(HUB):
        parse_hub(source)
        return
    try:
        _check_kind(source)
        check_file(Path(source))
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); mend that, or name another.") from None


def _check_kind(source: str) -> None:
    path = Path(source)
    if not source or (path.suffix.lower() not in ENDINGS and not path.exists()):
        raise BadInput(
            f"'{source}' is not a corpus; name 'packaged', 'hub:NAME', {LOCAL}, a folder with one such file "
            "a language, or several of these with ' + ' between them."
        )


def _usable(values: Iterable[Any]) -> Iterator[str]:
    """The different, non-empty strings among the values, stripped."""
    seen: set[str] = set()
    for value in values:
        if not isinstance(value, str):
            continue
        # JSON can hold lone surrogates, which no tokenizer takes
        text = value.encode("utf-8", "replace").decode("utf-8").strip()
        if text and text not in seen:
            seen.add(text)
            yield text


def _from_disk(source: str, cache: Path, progress: Callable[[str], None] | None) -> Iterable[Any]:
    if source == PACKAGED:
        return [paragraph.text for paragraph in harvest(cache, progress)]
    return read_file(Path(source))
