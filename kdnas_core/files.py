"""Files that are written whole or not at all, and the cache of this machine.

The cache has one small JSON file for each question and its answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

_LOCK = "lock"


def cache_folder() -> Path:
    """Returns the cache folder: `KDNAS_CACHE`, or a folder in the user's cache."""
    named = os.environ.get("KDNAS_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("kdnas-studio"))


def remember(kind: str, question: dict[str, Any], answer: dict[str, Any]) -> None:
    """Stores the answer to a question under `kind`; replaces an earlier answer."""
    path = _path(kind, question)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"question": question, "answer": answer}).encode())


def recall(kind: str, question: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the stored answer, or None if there is none."""
    try:
        answer: dict[str, Any] = json.loads(_path(kind, question).read_bytes())["answer"]
        return answer
    except (FileNotFoundError, ValueError):
        return None


def remembered(kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns every stored question of a kind with its answer, sorted by file name.

    A file is read again only after it changed. Damaged files are left out.
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
    """The content of a file; None if it is damaged. `changed` and `size` are the key of the cache."""
    try:
        fact = json.loads(path.read_bytes())
        question, answer = fact["question"], fact["answer"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return (question, answer) if isinstance(question, dict) and isinstance(answer, dict) else None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically: neither a reader nor a crash sees a partial file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


@contextmanager
def own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields an empty folder for a `with` block, and removes those that killed processes left.

    A lock in it shows that its process lives. Other folders of this prefix, which hold no lock, stay.
    """
    for left in parent.glob(f"{prefix}*/{_LOCK}"):
        with suppress(Timeout, OSError), FileLock(left, blocking=False):
            shutil.rmtree(left.parent, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as made,
        FileLock(Path(made) / _LOCK),
    ):
        yield Path(made)


def delete_beyond(parent: Path, most_bytes: int, spared: Path) -> None:
    """Deletes the folders in `parent` that were touched longest ago, beyond so many bytes of all of them.

    A process that has one of their files open keeps it.
    """
    total = _bytes_of(spared)
    others = [path for path in parent.iterdir() if path != spared and not path.name.startswith(".")]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        total += _bytes_of(folder)
        if total > most_bytes:
            shutil.rmtree(folder, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _path(kind: str, question: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / kind / f"{digest}.json"
