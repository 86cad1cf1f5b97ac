"""Other processes that a page or a command starts: a worker that outlives it, and the check of a spec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.store import files_of
from kdnas_core.spec import DistilSpec, RunSpec, ScoreSpec, SweepSpec

STARTS_WITHIN_S = 30
CHECK_TIMEOUT_S = 600


def worker_lock(db: Path) -> FileLock:
    """The lock that the worker serving a store holds as long as it lives."""
    return FileLock(db.with_name(f"{db.name}.worker.lock"))


def ensure_worker(db: Path) -> None:
    """Starts a worker that serves the store until nothing is queued, unless one is serving it.

    The worker is detached: it survives the tab, the server and the terminal that asked for it. Its log is
    beside the store.
    """
    with FileLock(db.with_name(f"{db.name}.start.lock")):  # who asks at the same time waits for the answer
        if not _is_served(db):
            _start_worker(db)


def _is_served(db: Path) -> bool:
    try:
        with worker_lock(db).acquire(blocking=False):
            return False
    except Timeout:
        return True


def _start_worker(db: Path) -> None:
    files = files_of(db)
    files.mkdir(parents=True, exist_ok=True)
    with (files / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "kdnas_core", "worker", "--until-idle", "--db", str(db)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while worker.poll() is None and not _is_served(db) and time.monotonic() < deadline:
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    """This process's, with the folder of this package on the path, whatever the working folder is."""
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def check_spec(spec: RunSpec) -> None:
    """Checks a spec in a child process, as a search would before it writes anything.

    Takes seconds: the teacher and the corpus are loaded, the teacher and the smallest student measured.

    Raises:
        BadInput: the spec cannot be searched; says why.
        Failure: the check did not come to an end.
    """
    _checked(["check", "--spec", "-"], spec.to_json())


def check_distillation(db: Path, source: str, how: DistilSpec) -> None:
    """Checks in a child process what `distill` would before it writes anything.

    Args:
        db: the store.
        source: a candidate, as in "12", or a student, as in "s3".
        how: how it is to be distilled.

    Raises:
        BadInput: it cannot be distilled; says why.
        Failure: the check did not come to an end.
    """
    _checked(["distill", source, "--check", "--db", str(db), *_settings(how)])


def check_evaluation(db: Path, source: str, how: ScoreSpec) -> None:
    """Checks in a child process what `evaluate` would before it writes anything; as `check_distillation`."""
    _checked(["evaluate", source, "--check", "--db", str(db), *_settings(how)])


def check_latency(db: Path, source: str, how: SweepSpec) -> None:
    """Checks in a child process what `latency` would before it writes anything; as `check_distillation`."""
    _checked(["latency", source, "--check", "--db", str(db), *_settings(how)])


def _settings(how: DistilSpec | ScoreSpec | SweepSpec) -> list[str]:
    return [
        part
        for name, value in how.model_dump(exclude_none=True).items()
        for part in ("--set", f"{name}={json.dumps(value)}")
    ]


def _checked(command: list[str], given: str = "") -> None:
    try:
        child = subprocess.run(
            [sys.executable, "-m", "kdnas_core", *command],
            input=given,
            text=True,
            capture_output=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"The check took longer than {CHECK_TIMEOUT_S} s; see whether the machine is busy."
        ) from None
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        if child.returncode == 2:
            raise BadInput(last)
        raise Failure(f"The check ended with code {child.returncode}: {last}")
