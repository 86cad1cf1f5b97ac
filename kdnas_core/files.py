"""Files that are written whole or not at all, and the cache of this machine.

The cache has one small JSON file for each question and its answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

_LOCK, _DISCARDED = ".kdnas-lock", ".discarded-"


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
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync_files(folder: Path) -> None:
    """Flushes all files of a folder to disk, before something refers to them."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def keep_latest(paths: Iterable[Path], most: int) -> None:
    """Deletes files but for the `most` that were used last, by their times of modification."""
    used = [(status.st_mtime, path) for path in paths if (status := _status(path))]
    for _, old in sorted(used)[:-most]:
        with suppress(OSError):  # another process has it open, where that keeps it
            old.unlink(missing_ok=True)


def delete_beyond(parent: Path, most_bytes: int, spared: Path) -> None:
    """Deletes the folders in `parent` other than `spared` that go beyond so many bytes, oldest use first.

    The use of a folder is its time of modification. A process that has one of their files open keeps it.
    """
    total = 0
    for _, folder, size in sorted(_folders(parent, spared), reverse=True):
        total += size
        if total > most_bytes:
            discard(folder)


def _folders(parent: Path, spared: Path) -> Iterator[tuple[float, Path, int]]:
    for folder in parent.iterdir():
        if folder.name.startswith(_DISCARDED):  # left by a process that was killed
            shutil.rmtree(folder, ignore_errors=True)
        elif folder != spared and not folder.name.startswith(".") and folder.is_dir():
            with suppress(OSError):  # another process deletes it
                size = sum(file.stat().st_size for file in folder.iterdir())
                yield folder.stat().st_mtime, folder, size


def discard(folder: Path) -> None:
    """Deletes a folder; it is renamed first, so that a kill leaves no partial folder under its name."""
    with suppress(OSError):  # another process does the same
        aside = folder.replace(Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DISCARDED)))
        shutil.rmtree(aside, ignore_errors=True)


def _path(kind: str, question: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / kind / f"{digest}.json"
