"""Text by name: the packaged corpus, a data set of the Hugging Face hub, or a local file."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kdnas_core.distillation.harvest import harvest
from kdnas_core.errors import BadInput

logger = logging.getLogger(__name__)

_TEXT_ENDINGS = (".txt", ".jsonl", ".csv", ".tsv")
_ENDINGS = (*_TEXT_ENDINGS, ".parquet")
_LOCAL = "the path of a local .txt, .jsonl, .csv, .tsv or .parquet file"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HUB_SECONDS = 4.0  # to wait for one address of the hub; it has several, and all must fail within 20 seconds
_HUB_BUFFER = 10_000  # rows of a stream that are shuffled at a time
_NUMBER = re.compile(r"[+-]?(\d[\d_,]*)?\.?\d*([eE][+-]?\d+)?")


def check_corpus(source: str) -> None:
    """Refuse early, without reading a table or asking a network, what `read_corpus` could not read.

    Raises:
        BadInput: the source is none of the three kinds, its hub name is malformed, or its file is missing,
            empty, binary or not UTF-8.
    """
    if source == "packaged":
        return
    if source.startswith("hub:"):
        _parse_hub(source)
        return
    try:
        _check_file(Path(source), source)
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); mend that, or name another.") from None


def read_corpus(
    source: str, cache: Path, seed: int, limit: int, progress: Callable[[str], None] | None = None
) -> list[str]:
    """Up to `limit` different texts, chosen by a shuffle that the seed determines.

    `source` is `packaged`, `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]` or a path; the column of a table is `text`,
    else `sentence`, else its only column of strings. The packaged corpus is kept in `cache`; the hub keeps
    to its own. Of a hub data set no more is downloaded than a shuffled stream of `limit` texts takes.

    Raises:
        BadInput: the source cannot be read, or holds no text.
    """
    check_corpus(source)
    if source.startswith("hub:"):
        texts = list(islice(_usable(_from_hub(source, seed, progress or logger.info)), limit))
    else:
        texts = list(_usable(_from_disk(source, cache, progress)))
        random.Random(seed).shuffle(texts)
    if not texts:
        raise BadInput(f"{source} holds no text; name a corpus that does, for instance 'packaged'.")
    return texts[:limit]


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


# Local files


def _check_file(path: Path, source: str) -> None:
    if not source or (path.suffix.lower() not in _ENDINGS and not path.exists()):
        raise BadInput(f"'{source}' is not a corpus; name 'packaged', 'hub:NAME' or {_LOCAL}.")
    if not path.exists():
        raise BadInput(f"{source} does not exist; check the path.")
    if not path.is_file():
        raise BadInput(f"{source} is not a file; name {_LOCAL}.")
    if path.suffix.lower() not in _ENDINGS:
        raise BadInput(f"{source} has an ending that is not known; name {_LOCAL}.")
    if path.stat().st_size == 0:
        raise BadInput(f"{source} is empty; name a file that holds text.")
    if path.suffix.lower() == ".parquet":
        _check_parquet(path)
    else:
        _check_utf8(path)


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise BadInput(f"{path} is not a Parquet file, whatever its ending; save it as one.")


def _check_utf8(path: Path) -> None:
    offset = 0
    with path.open("rb") as file:
        if b"\0" in file.read(65_536):
            raise BadInput(f"{path} is binary; save it as text in UTF-8.")
        file.seek(0)
        for number, line in enumerate(file, 1):  # no byte of a UTF-8 sequence is a line feed
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"byte {offset + error.start}, on line {number},"
                raise BadInput(f"{path} is not UTF-8: {place} is not; save it as UTF-8.") from None
            offset += len(line)


def _from_disk(source: str, cache: Path, progress: Callable[[str], None] | None) -> Iterable[Any]:
    if source == "packaged":
        return [paragraph.text for paragraph in harvest(cache, progress)]
    path = Path(source)
    readers = {".txt": _lines, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    try:
        return readers.get(path.suffix.lower(), _from_csv)(path)
    except BadInput:
        raise
    except (OSError, ValueError) as error:  # what pandas and pyarrow raise is a ValueError too
        raise BadInput(f"{path} cannot be read ({_reason(error)}); mend it, or save it as .txt.") from None


def _lines(path: Path) -> list[str]:
    # not splitlines(), which also cuts at characters that a passage may hold
    return path.read_text("utf-8-sig").split("\n")


def _from_jsonl(path: Path) -> Iterable[Any]:
    rows = [_json_row(path, number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
    return _column_of_rows(rows, rows, str(path))


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise BadInput(f"{path} has no JSON object on line {number}; write one object a line.")
    return row


def _from_csv(path: Path) -> Iterable[Any]:
    import pandas

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    table = pandas.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False)
    names = [str(name) for name in table.columns]
    strings = [name for name in names if any(isinstance(value, str) for value in table[name])]
    column = table[_text_column(names, strings, str(path))]
    # a table without types: a number in a column of strings has become a string
    return [value for value in column if isinstance(value, str) and not _NUMBER.fullmatch(value.strip())]


def _from_parquet(path: Path) -> Iterable[Any]:
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    schema = file.schema_arrow
    kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
    strings = [field.name for field in schema if field.type in kinds]
    column = _text_column(schema.names, strings, str(path))
    values: list[Any] = file.read(columns=[column])[column].to_pylist()
    return values


def _column_of_rows(rows: Iterable[dict[str, Any]], head: list[dict[str, Any]], source: str) -> Iterable[Any]:
    """The values of the text column of rows, which the first of them tell."""
    names = list(dict.fromkeys(name for row in head for name in row))
    strings = [name for name in names if any(isinstance(row.get(name), str) for row in head)]
    column = _text_column(names, strings, source)
    return (row.get(column) for row in rows)


def _text_column(names: list[str], strings: list[str], source: str) -> str:
    for name in ("text", "sentence"):
        if name in names:
            return name
    if len(strings) == 1:
        return strings[0]
    columns = ", ".join(f"'{name}'" for name in names) or "none"
    raise BadInput(
        f"{source} has no column 'text' or 'sentence', but {columns}; rename one of them to 'text'."
    )


# The hub


@dataclass(frozen=True)
class _HubName:
    name: str
    config: str | None
    split: str
    column: str | None


def _parse_hub(source: str) -> _HubName:
    name, config, split, column = [*source.removeprefix("hub:").split(":", 3), "", "", ""][:4]
    if not _HUB_NAME.fullmatch(name):
        raise BadInput(
            f"'{source}' does not name a data set of the hub; write hub:NAME[:CONFIG[:SPLIT[:COLUMN]]], "
            "for instance hub:stanfordnlp/imdb."
        )
    return _HubName(name, config or None, split or "train", column or None)


def _from_hub(source: str, seed: int, progress: Callable[[str], None]) -> Iterator[Any]:
    wanted = _parse_hub(source)
    progress(f"Reading {wanted.name} from the Hugging Face hub")
    try:
        rows = iter(_stream(wanted, seed))
        head = list(islice(rows, 100))
        if wanted.column is None:
            yield from _column_of_rows(chain(head, rows), head, source)
        else:
            _require_column(wanted.column, head, source)
            yield from (row[wanted.column] for row in chain(head, rows))
    except BadInput:
        raise
    except Exception as error:  # a dozen kinds, of five libraries: no network, config, split or answer
        logger.debug(f"{source} failed", exc_info=True)
        raise BadInput(
            f"{source} could not be read from the Hugging Face hub ({_reason(error)}); it needs a network "
            f"and the right name, and without them name 'packaged' or {_LOCAL}."
        ) from error


def _stream(wanted: _HubName, seed: int) -> Iterable[dict[str, Any]]:
    import datasets
    import huggingface_hub

    # load_dataset repeats for half a minute what cannot be reached; this asks once
    try:
        huggingface_hub.HfApi().dataset_info(wanted.name, timeout=_HUB_SECONDS)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise BadInput(
            f"The Hugging Face hub has no data set '{wanted.name}', or hides it; check the name, or name "
            f"'packaged' or {_LOCAL}."
        ) from None
    stream = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split, streaming=True)
    rows: Iterable[dict[str, Any]] = stream.shuffle(seed=seed, buffer_size=_HUB_BUFFER)
    return rows


def _require_column(column: str, head: list[dict[str, Any]], source: str) -> None:
    names = list(head[0]) if head else [column]
    if column not in names:
        raise BadInput(f"{source} has no column '{column}'; name one of its columns ({', '.join(names)}).")


def _reason(error: Exception) -> str:
    """The message of an error as part of one sentence."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200].rstrip(".").replace(". ", "; ")
