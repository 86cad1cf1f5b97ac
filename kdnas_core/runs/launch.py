"""Starts workers for a page or a command, which they outlive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from kdnas_core.runs.jobs import Lane
from kdnas_core.runs.store import files_of

STARTS_WITHIN_S = 120  # loading the libraries takes long on a busy machine with a cold disk


def worker_lock(db: Path, lane: Lane = "long") -> FileLock:
    """Returns the lock that the worker of a lane of a store holds until it ends."""
    return FileLock(db.with_name(f"{db.name}.{'worker' if lane == 'long' else lane}.lock"))


def ensure_worker(db: Path, lane: Lane = "long") -> None:
    """Starts a worker that serves a lane of the store until nothing is queued, unless there is one already.

    The worker is detached: it survives the browser tab, the server and the terminal. Its log is in the
    store's folder of files.
    """
    with FileLock(db.with_name(f"{db.name}.start.lock")):  # concurrent callers must not start two
        if not is_served(db, lane):
            _start_worker(db, lane)


def is_served(db: Path, lane: Lane = "long") -> bool:
    """Returns whether a worker serves a lane of the store."""
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
            env=environment(),
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while worker.poll() is None and not is_served(db, lane) and time.monotonic() < deadline:
        time.sleep(0.05)


def environment() -> dict[str, str]:
    """Returns the environment of this process, with this package on the path for any working folder."""
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
