"""Runs the child processes that check an export."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from kdnas_core.errors import Failure

Say = Callable[[str], None]
Files = tuple[IO[bytes], IO[bytes], IO[bytes]]  # a child's stdin, stdout and stderr

TELLING = "> "  # marks a line of a child's output as its activity
LOOK_EVERY_S = 0.3
TIMEOUT_S = 1_800
_ROOT = Path(__file__).resolve().parents[2]
_SERVER = Path(__file__).parent / "clean" / "server.py"
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GOMP_SPINCOUNT": "1000",  # waiting threads sleep soon
}


def in_clean_process(
    script: Path, folder: Path, asked: dict[str, Any], say: Say, needs_torch: bool = True
) -> dict[str, Any]:
    """Runs a script that imports nothing of this project, with the hub offline, and returns its result.

    Args:
        script: one of `clean/`.
        folder: of the export.
        asked: the script's input, sent as JSON.
        needs_torch: whether it uses torch and transformers; on Linux it is then forked from a process that
            has loaded them, which takes seconds less.
        say: called with the activity several times a second; may raise, which ends the child.

    Raises:
        Failure: the script failed or took too long; says how.
    """
    environment = {**os.environ, **_QUIET, "HF_HUB_OFFLINE": "1"}
    words = script.stem.removeprefix("with_").replace("_", " ")

    def start(files: Files) -> Child:
        if needs_torch and sys.platform == "linux":
            return _forked(script, folder, environment, files)
        return _started(["-I", str(script), str(folder)], environment, files)

    return _result(start, asked, say, f"loading it with {words} alone")


def in_own_process(module: str, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """Runs a module of this project, which reports its activity; else as `in_clean_process`."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **_QUIET, "PYTHONPATH": path}
    return _result(
        lambda files: _started(["-m", module], environment, files), asked, say, "loading the student"
    )


@dataclass(frozen=True)
class Child:
    """A process: `wait` returns its exit code, or None if it runs on after some seconds; `kill` ends it."""

    wait: Callable[[float], int | None]
    kill: Callable[[], None]


def _started(command: Sequence[str], environment: dict[str, str], files: Files) -> Child:
    stdin, stdout, stderr = files
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends the child
    )

    def wait(seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        return None

    def kill() -> None:
        process.kill()
        process.wait()

    return Child(wait, kill)


class _Server:
    """The process that children are forked from (`clean/server.py`); it ends with this one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.is_busy = False
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(_SERVER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # this process may print JSON alone on its own
                env=environment,
                start_new_session=True,
            )

    def run(self, asked: dict[str, Any], files: Files) -> Child:
        """Starts a child; a server that has ended gives one that has failed."""
        message, self.is_busy = json.dumps(asked).encode(), True
        with suppress(ConnectionError):
            length = len(message).to_bytes(8, "big")
            socket.send_fds(self.socket, [length], [file.fileno() for file in files])
            self.socket.sendall(message)
        return Child(self._code, self.end)

    def _code(self, seconds: float) -> int | None:
        """The exit code of its child; its own if it has ended, None if nothing does within some seconds."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        with suppress(ConnectionError):
            if code := self.socket.recv(8):
                self.is_busy = False
                return int.from_bytes(code, "big", signed=True)
        return self.process.wait() or 1

    def end(self) -> None:
        """Ends it, and a child with it; the next child has another server."""
        self.process.kill()
        self.process.wait()
        self.socket.close()
        _servers.remove(self)


_servers: list[_Server] = []  # at most one


def _forked(script: Path, folder: Path, environment: dict[str, str], files: Files) -> Child:
    if _servers and (_servers[0].is_busy or _servers[0].process.poll() is not None):
        _servers[0].end()  # a child whose end nobody waited for is ended too
    if not _servers:
        _servers.append(_Server(environment))
    asked = {
        "script": str(script),
        "folder": str(folder),
        "environment": environment,
        "cwd": str(Path.cwd()),
    }
    return _servers[0].run(asked, files)


def _result(
    start: Callable[[Files], Child], asked: dict[str, Any], say: Say, activity: str
) -> dict[str, Any]:
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(json.dumps(asked).encode())
        given.seek(0)
        code, activity = _awaited(start((given, out, err)), out, say, activity)
        if code:
            lines = _content(err).decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"it ended with code {code}"
            raise Failure(f"The export was not made: {activity} failed ({reason.rstrip('.')}).")
        found: dict[str, Any] = json.loads(_content(out).decode().splitlines()[-1])
        return found


def _awaited(child: Child, out: IO[bytes], say: Say, activity: str) -> tuple[int, str]:
    """Waits for the end of a child; returns its exit code, and what it did last."""
    deadline = time.monotonic() + TIMEOUT_S
    code: int | None = None
    try:
        while time.monotonic() < deadline:
            say(activity)
            code = child.wait(LOOK_EVERY_S)
            if code is not None:
                return code, activity
            activity = _last_told(_content(out)) or activity
    finally:
        if code is None:
            child.kill()
    raise Failure(
        f"The export was not made: {activity} took longer than {TIMEOUT_S // 60} minutes; try again."
    )


def _content(file: IO[bytes]) -> bytes:
    """What a child has written so far; read without moving the place that it writes at."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _last_told(output: bytes) -> str | None:
    lines = output.decode(errors="replace").splitlines()
    told = [line.removeprefix(TELLING) for line in lines if line.startswith(TELLING)]
    return told[-1] if told else None
