"""Other processes that check an export; they end with the one that asked, however that ends."""

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

TELLING = "> "  # a line of a child's output that says what it does
LOOK_EVERY_S = 0.3
TIMEOUT_S = 1_800
_ROOT = Path(__file__).resolve().parents[2]
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GOMP_SPINCOUNT": "1000",  # threads that wait soon sleep
}


def in_clean_process(script: Path, folder: Path, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """What a script finds that knows nothing of this project, and is shown nothing of the network.

    Args:
        script: one of `clean/`.
        folder: of the export.
        asked: given to it as JSON.
        say: told what is being done several times a second; may raise, which ends the child.

    Raises:
        Failure: it ended badly; says how.
    """
    environment = {**os.environ, **_QUIET, "HF_HUB_OFFLINE": "1"}
    words = script.stem.removeprefix("with_").replace("_", " ")
    return _result(
        ["-I", str(script), str(folder)], asked, environment, say, f"loading it with {words} alone"
    )


def in_own_process(module: str, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """What a module of this project finds, which says on the way what it does; as `in_clean_process`."""
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
        start_new_session=True,  # Ctrl-C comes to this process alone, which then ends the child
    )
    with child:
        try:
            out, err = _awaited(child, json.dumps(asked).encode(), say, activity)
        finally:
            child.kill()  # of one that has ended nothing is killed
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
            asked = None  # it is given once
            activity = _last_told(not_yet.output) or activity
    raise Failure(
        f"The export was not made: {activity} took longer than {TIMEOUT_S // 60} minutes; try again."
    )


def _last_told(output: bytes | None) -> str | None:
    lines = (output or b"").decode(errors="replace").splitlines()
    told = [line.removeprefix(TELLING) for line in lines if line.startswith(TELLING)]
    return told[-1] if told else None
