"""Other processes that a page or a command starts: a worker that outlives it, and the check of a spec."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from kdnas_core.errors import BadInput, Failure
from kdnas_core.spec import RunSpec

CHECK_TIMEOUT_S = 600


def worker_lock(db: Path) -> FileLock:
    """The lock that the worker serving a store holds as long as it lives."""
    return FileLock(db.with_name(f"{db.name}.worker.lock"))


def ensure_worker(db: Path) -> None:
    """Starts a worker that serves the store until nothing is queued, unless one is serving it.

    The worker is detached: it survives the tab, the server and the terminal that asked for it. Its log is
    beside the store.
    """
    try:
        with worker_lock(db).acquire(blocking=False):
            pass
    except Timeout:
        return
    files = db.with_suffix(".files")
    files.mkdir(parents=True, exist_ok=True)
    with (files / "worker.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "kdnas_core", "worker", "--until-idle", "--db", str(db)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def check_spec(spec: RunSpec) -> None:
    """Checks a spec in a child process, as a search would before it writes anything.

    Takes seconds: the teacher and the corpus are loaded, the teacher and the smallest student measured.

    Raises:
        BadInput: the spec cannot be searched; says why.
        Failure: the check did not come to an end.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", "kdnas_core", "check", "--spec", "-"],
            input=spec.to_json(),
            text=True,
            capture_output=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"The check took longer than {CHECK_TIMEOUT_S} s; see whether the machine is busy."
        ) from None
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["The check ended without a word."]
        raise BadInput(lines[-1])
