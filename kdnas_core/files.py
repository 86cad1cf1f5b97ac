"""What this machine remembers between runs: one small JSON file a fact, in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs


def cache_folder() -> Path:
    """Where harvested text, teacher outputs and measurements are kept: `KDNAS_CACHE`, or the user's cache."""
    named = os.environ.get("KDNAS_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("kdnas-studio"))


def remember(kind: str, question: dict[str, Any], answer: dict[str, Any]) -> None:
    """Keeps the answer to a question under `kind`; an earlier answer is replaced."""
    path = _path(kind, question)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"question": question, "answer": answer}).encode())


def recall(kind: str, question: dict[str, Any]) -> dict[str, Any] | None:
    """The remembered answer, or None where the question was never answered here."""
    try:
        answer: dict[str, Any] = json.loads(_path(kind, question).read_bytes())["answer"]
        return answer
    except (FileNotFoundError, ValueError):
        return None


def remembered(kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every question of a kind that was answered here, with its answer, in an order that does not change.

    A file is read once for as long as it stays the same; damaged ones are left out.
    """
    files = sorted(path for path in (cache_folder() / kind).glob("*.json") if not path.name.startswith("."))
    facts = (_fact(path, status.st_mtime_ns, status.st_size) for path in files if (status := _status(path)))
    return [fact for fact in facts if fact is not None]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # deleted since it was listed
        return None


@lru_cache(maxsize=4_096)
def _fact(path: Path, changed: int, size: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What a file holds that was changed then and is of that size; None where it is damaged."""
    try:
        fact = json.loads(path.read_bytes())
        question, answer = fact["question"], fact["answer"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return (question, answer) if isinstance(question, dict) and isinstance(answer, dict) else None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, never meets half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(name).replace(path)


def _path(kind: str, question: dict[str, Any]) -> Path:
    word = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / kind / f"{word}.json"
