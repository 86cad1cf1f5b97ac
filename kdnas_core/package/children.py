"""Runs the child processes that check an export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdnas_core.errors import Failure

Say = Callable[[str], None]

TELLING = "> "  # marks a line of a child's output as its activity
LOOK_EVERY_S = 0.3
TIMEOUT_S = 1_800
_ROOT = Path(__file__).resolve().parents[2]
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GOMP_SPINCOUNT": "1000",  # waiting threads sleep soon
}


def in_clean_process(script: Path, folder: Path, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """Runs a script that imports nothing of this project, with the hub offline, and returns its result.

    Args:
        script: one of `clean/`.
        folder: of the export.
        asked: the script's input, sent as JSON.
        say: called with the activity several times a second; may raise, which ends the child.

    Raises:
        Failure: the script failed or took too long; says how.
    """
    environment = {**os.environ, **_QUIET, "HF_HUB_OFFLINE": "1"}
    words = script.stem.removeprefix("with_").replace("_", " ")
    return _result(
        ["-I", str(script), str(folder)], asked, environment, say, f"loading it with {words} alone"
    )


def in_own_process(module: str, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """Runs a module of this project, which reports its activity; else as `in_clean_process`."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **_QUIET, "PYTHONPATH": path}
    return _result(["-m", module], asked, environment, say, "loading the student")


def _result(
    command: Sequence[str], asked: dict[str, Any], environment: dict[str, str], say: Say, activity: str
) -> dict[str, Any]:
    child = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends the child
    )
    with child:
        try:
            out, err = _awaited(child, json.dumps(asked).encode(), say, activity)
        finally:
            child.kill()  # does nothing if it has ended
    if child.returncode:
        lines = err.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {child.returncode}"
        raise Failure(f"The export was not made: {activity} failed ({reason.rstrip('.')}).")
    found: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return found


def _awaited(child: subprocess.Popen[bytes], given: bytes, say: Say, activity: str) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + TIMEOUT_S
    asked: bytes | None = given
    while time.monotonic() < deadline:
        say(activity)
        try:
            return child.communicate(asked, timeout=LOOK_EVERY_S)
        except subprocess.TimeoutExpired as not_yet:
            asked = None  # the input is sent once
            activity = _last_told(not_yet.output) or activity
    raise Failure(
        f"The export was not made: {activity} took longer than {TIMEOUT_S // 60} minutes; try again."
    )


def _last_told(output: bytes | None) -> str | None:
    lines = (output or b"").decode(errors="replace").splitlines()
    told = [line.removeprefix(TELLING) for line in lines if line.startswith(TELLING)]
    return told[-1] if told else None
