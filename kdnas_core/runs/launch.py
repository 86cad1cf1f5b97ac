"""The workers that a page or a command starts, and that outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from kdnas_core.runs.jobs import Lane
from kdnas_core.runs.store import files_of

STARTS_WITHIN_S = 120  # on a busy machine with a cold disk; libraries are loaded first


def worker_lock(db: Path, lane: Lane = "long") -> FileLock:
    """The lock that the worker serving a lane of a store holds as long as it lives."""
    return FileLock(db.with_name(f"{db.name}.{'worker' if lane == 'long' else lane}.lock"))


def ensure_worker(db: Path, lane: Lane = "long") -> None:
    """Starts a worker that serves a lane of the store until nothing is queued, unless one is serving it.

    The worker is detached: it survives the tab, the server and the terminal that asked for it. Its log is
    beside the store.
    """
    with FileLock(db.with_name(f"{db.name}.start.lock")):  # who asks at the same time waits for the answer
        if not is_served(db, lane):
            _start_worker(db, lane)


def is_served(db: Path, lane: Lane = "long") -> bool:
    """Whether a worker serves a lane of the store."""
    try:
        with worker_lock(db, lane).acquire(blocking=False):
            return False
    except Timeout:
        return True


def _start_worker(db: Path, lane: Lane) -> None:
    files = files_of(db)
    files.mkdir(parents=True, exist_ok=True)
    with (files / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "kdnas_core", "worker", "--until-idle", "--lane", lane, "--db", str(db)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while worker.poll() is None and not is_served(db, lane) and time.monotonic() < deadline:
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    """This process's, with the folder of this package on the path, whatever the working folder is."""
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
