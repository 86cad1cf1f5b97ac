"""File locks that show whether a worker on this host lives: each ends with its process."""

from __future__ import annotations

import fcntl
from pathlib import Path

from filelock import FileLock

from kdnas_core.runs.jobs import Lease

_held: dict[Path, FileLock] = {}


def hold(folder: Path, lease: Lease) -> None:
    """Locks a lease's file in a folder until this process ends or releases it."""
    path = _path(folder, lease)
    path.parent.mkdir(parents=True, exist_ok=True)
    for earlier in path.parent.glob(f"{lease.job.kind}-{lease.job.id}-*.lock"):
        if earlier != path:  # left by a killed process
            _held.pop(earlier, None)
            earlier.unlink(missing_ok=True)
    lock = FileLock(path)
    lock.acquire()
    _held[path] = lock


def release(folder: Path, lease: Lease) -> None:
    """Releases a lease; does nothing if this process does not hold it."""
    path = _path(folder, lease)
    lock = _held.pop(path, None)
    if lock is not None:
        lock.release()
        path.unlink(missing_ok=True)


def is_held(folder: Path, lease: Lease) -> bool:
    """Returns whether a process on this host holds a lease; neither waits nor blocks other readers."""
    try:
        with _path(folder, lease).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _path(folder: Path, lease: Lease) -> Path:
    return folder / f"{lease.job.kind}-{lease.job.id}-{lease.fence}.lock"
