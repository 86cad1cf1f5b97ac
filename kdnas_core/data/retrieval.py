"""Retrieval tasks: queries, documents, and which documents answer which query."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas_core.data.packaged_task import judged_paragraphs
from kdnas_core.data.task_files import sound
from kdnas_core.errors import BadInput

PACKAGED_RETRIEVAL = "packaged-retrieval"
CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
FEWEST_WORDS = 4  # of a query, and of a document

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Retrieval:
    """A retrieval task.

    Attributes:
        name: "packaged-retrieval", or the folder's name.
        queries: each with at least one relevant document.
        documents: to choose from, the same for all queries.
        relevant: for each query, the grades above 0 of documents, by their index.
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: tuple[Mapping[int, float], ...]


def is_retrieval(source: str) -> bool:
    """Returns whether a task is one of retrieval: the packaged one, or a folder in BEIR's layout."""
    try:
        folder = Path(source).expanduser()
        return source == PACKAGED_RETRIEVAL or all((folder / name).is_file() for name in (CORPUS, QUERIES))
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL byte
        return False


def read_retrieval(source: str, cache: Path, split: str) -> Retrieval:
    """Reads a retrieval task.

    Args:
        source: `packaged-retrieval`; or a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`,
            the layout of BEIR (arXiv 2104.08663).
        cache: folder of the packaged corpus.
        split: of a folder; where it lacks that one and has `test`, which most of BEIR's have alone, that.

    Raises:
        BadInput: it cannot be read; says why in one sentence.
    """
    return _packaged(cache) if source == PACKAGED_RETRIEVAL else _of_folder(Path(source).expanduser(), split)


def _packaged(cache: Path) -> Retrieval:
    """Which rest of a paragraph goes on from a first sentence? (The inverse cloze task, arXiv 1906.00300.)

    Of the paragraphs of the packaged task's validation and test splits, which no student learns from.
    """
    pairs = dict(filter(None, map(_beginning, judged_paragraphs(cache))))  # each first sentence once
    documents = tuple(dict.fromkeys(pairs.values()))
    places = {document: place for place, document in enumerate(documents)}
    relevant = tuple({places[rest]: 1.0} for rest in pairs.values())
    return Retrieval(PACKAGED_RETRIEVAL, tuple(pairs), documents, relevant)


def _beginning(paragraph: str) -> tuple[str, str] | None:
    """A paragraph's first sentence and the rest of it; None if one of them is too short."""
    first, *rest = _SENTENCE_END.split(paragraph, maxsplit=1)
    return (first, rest[0]) if rest and all(_is_long(part) for part in (first, rest[0])) else None


def _is_long(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS


def _of_folder(folder: Path, split: str) -> Retrieval:
    documents = {key: _document(row) for key, row in _rows(folder / CORPUS)}
    queries = {key: str(row.get("text", "")) for key, row in _rows(folder / QUERIES)}
    judged = _judgements(_qrels(folder, split), queries, documents)
    if len(documents) < 2:
        raise BadInput(f"{folder / CORPUS} has fewer than two documents; add those to choose from.")
    if not judged:
        raise BadInput(f"No query of {folder} has a relevant document; add rows with a score above 0.")
    places = {key: place for place, key in enumerate(documents)}
    relevant = tuple({places[key]: grade for key, grade in of_query.items()} for of_query in judged.values())
    name, asked = sound(folder.resolve().name), tuple(queries[key] for key in judged)
    return Retrieval(name, asked, tuple(documents.values()), relevant)


def _document(row: Mapping[str, Any]) -> str:
    return f"{row.get('title') or ''} {row.get('text') or ''}".strip()


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file by their `_id`."""
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
            key = str(row["_id"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise BadInput(f"Line {number} of {path} is not a JSON object with an '_id'; fix it.") from None
        yield key, row


def _lines(path: Path) -> Sequence[str]:
    try:
        return [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); fix that.") from None


def _qrels(folder: Path, split: str) -> Path:
    paths = [folder / "qrels" / f"{name}.tsv" for name in (split, "test")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise BadInput(f"The task {folder} has no qrels/{split}.tsv; add it, or score another split.")
    return found


def _judgements(
    path: Path, queries: Mapping[str, str], documents: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The grades above 0 by query and document."""
    judged: dict[str, dict[str, float]] = {}
    for number, row in enumerate(csv.reader(_lines(path), delimiter="\t"), 1):
        if number == 1 and not _is_number(row[-1]):  # the heading
            continue
        if len(row) != 3 or not _is_number(row[2]) or row[0] not in queries or row[1] not in documents:
            raise BadInput(
                f"Line {number} of {path} is not a known query, a known document and a score; fix it."
            )
        if float(row[2]) > 0:
            judged.setdefault(row[0], {})[row[1]] = float(row[2])
    return judged


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text.strip()) is not None
