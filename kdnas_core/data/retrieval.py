"""Retrieval tasks: queries, documents, and which documents answer which query."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdnas_core.data.packaged_task import judged_paragraphs
from kdnas_core.data.readers import lines_of, object_on, reason
from kdnas_core.data.tables import SCORABLE, TRAIN
from kdnas_core.data.task_files import sound
from kdnas_core.errors import BadInput

PACKAGED_RETRIEVAL = "packaged-retrieval"
CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
FEWEST_WORDS = 4  # of a query of the packaged task, and of a document
MOST_GRADE = 1_000

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Retrieval:
    """A retrieval task.

    Attributes:
        name: "packaged-retrieval", or the folder's name.
        split: whose queries are asked; empty for the packaged task, which has one.
        queries: each with at least one relevant document.
        documents: to choose from.
        relevant: for each query, the grades above 0 of documents, by their index.
        own: for each query, the index of the document that is the query itself, if there is one.
    """

    name: str
    split: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: tuple[Mapping[int, float], ...]
    own: tuple[int | None, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that is asked and found."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def is_retrieval(source: str) -> bool:
    """Returns whether a task is one of retrieval: the packaged one, or a folder with a `corpus.jsonl`."""
    try:
        return source == PACKAGED_RETRIEVAL or (Path(source).expanduser() / CORPUS).is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL byte
        return False


def read_retrieval(source: str, cache: Path, split: str = SCORABLE[0]) -> Retrieval:
    """Reads a retrieval task.

    Args:
        source: `packaged-retrieval`; or a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`,
            the layout of BEIR (arXiv 2104.08663).
        cache: folder of the packaged corpus.
        split: of a folder. "validation" also stands for "dev", and for "test" where there is no other.

    Raises:
        BadInput: it cannot be read; says why in one sentence.
    """
    if source == PACKAGED_RETRIEVAL:
        return _packaged(cache)
    try:
        return _of_folder(Path(source).expanduser(), split)
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(f"The task {source} cannot be read ({reason(error)}); fix that.") from None


def _packaged(cache: Path) -> Retrieval:
    """Which rest of a paragraph goes on from a first sentence? (The inverse cloze task, arXiv 1906.00300.)

    Of the paragraphs of the packaged task's validation and test splits, which are learnt nowhere.
    """
    pairs = dict(filter(None, map(_beginning, judged_paragraphs(cache))))  # each first sentence once
    documents = tuple(dict.fromkeys(pairs.values()))
    places = {document: place for place, document in enumerate(documents)}
    relevant = tuple({places[rest]: 1.0} for rest in pairs.values())
    return Retrieval(PACKAGED_RETRIEVAL, "", tuple(pairs), documents, relevant, (None,) * len(pairs))


def _beginning(paragraph: str) -> tuple[str, str] | None:
    """A paragraph's first sentence and the rest of it; None if one of them is too short."""
    first, *rest = _SENTENCE_END.split(paragraph, maxsplit=1)
    return (first, rest[0]) if rest and all(_is_long(part) for part in (first, rest[0])) else None


def _is_long(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS


def _of_folder(folder: Path, split: str) -> Retrieval:
    documents = dict(_texts(folder / CORPUS, ("title", "text"), may_be_empty=True))
    if sum(map(bool, documents.values())) < 2:
        raise BadInput(f"{folder / CORPUS} has fewer than two documents with text; add those to choose from.")
    queries = dict(_texts(folder / QUERIES, ("text",), may_be_empty=False))
    qrels = _qrels(folder, split)
    judged = _judgements(qrels, queries, documents)
    if not judged:
        raise BadInput(f"No query of {qrels} has a relevant document; add rows with a score above 0.")
    places = {key: place for place, key in enumerate(documents)}
    return Retrieval(
        name=sound(folder.resolve().name),
        split=qrels.stem,
        queries=tuple(queries[key] for key in judged),
        documents=tuple(documents.values()),
        relevant=tuple({places[key]: grade for key, grade in of_one.items()} for of_one in judged.values()),
        own=tuple(places.get(key) for key in judged),
    )


def _texts(path: Path, fields: Sequence[str], may_be_empty: bool) -> Iterator[tuple[str, str]]:
    """The `_id` and the text of each row: its fields, joined by spaces."""
    seen: set[str] = set()
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        row = object_on(path, number, line)
        key, parts = row.get("_id"), [row.get(field) or "" for field in fields]
        if not isinstance(key, (str, int)) or not all(isinstance(part, str) for part in parts):
            raise BadInput(f"Line {number} of {path} lacks an '_id', or its text is none; fix it.")
        if str(key) in seen:
            raise BadInput(f"Line {number} of {path} has the '_id' of an earlier one, {key}; keep one.")
        seen.add(str(key))
        text = sound(" ".join(filter(None, parts)).strip())
        if not text and not may_be_empty:
            raise BadInput(f"Line {number} of {path} has no text; write one, or take it out.")
        yield str(key), text


def _qrels(folder: Path, split: str) -> Path:
    if split == TRAIN:
        raise BadInput(f"The train split of {folder} is for learning; score another, as test.")
    names = [split, "dev", "test"] if split == SCORABLE[0] else [split]
    found = [path for name in names if (path := folder / QRELS / f"{name}.tsv").is_file()]
    if not found:
        raise BadInput(f"The task {folder} has no {QRELS}/{split}.tsv; add it, or score another split.")
    return found[0]


def _judgements(
    path: Path, queries: Mapping[str, Any], documents: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """The grades above 0 by query and document."""
    judged: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines_of(path), 1):
        row = line.strip("\r").split("\t")
        if not line.strip() or (number == 1 and _number(row[-1]) is None):  # the heading
            continue
        grade = _number(row[2]) if len(row) == 3 else None
        if grade is None or grade > MOST_GRADE:
            raise BadInput(f"Line {number} of {path} is not a query, a document and a score; fix it.")
        if grade <= 0:
            continue
        if row[0] not in queries or row[1] not in documents:
            raise BadInput(f"Line {number} of {path} names a query or a document that is not there; fix it.")
        judged.setdefault(row[0], {})[row[1]] = grade
    return judged


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
