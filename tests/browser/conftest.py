"""A server and a real Chromium for the tests in a browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.filled_store import fill

ROOT = Path(__file__).resolve().parents[2]
NO_CHROMIUM = (
    "No Chromium was found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path."
)
READY_S = 30


@dataclass(frozen=True)
class Server:
    """A running app: its address, its store, and its log."""

    url: str
    db: Path
    log: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("KDNAS_REQUIRE_BROWSER") == "1":
            pytest.fail(NO_CHROMIUM)
        pytest.skip(NO_CHROMIUM)
    return {
        **browser_type_launch_args,
        "executable_path": chromium,
        "args": [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ],
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of `streamlit run app.py` with its own cache and an empty store."""
    started = start_server(tmp_path)
    yield started
    stop_server(started)


@pytest.fixture(scope="session")
def filled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that change nothing; its store has run 1, finished."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "runs.db")
    started = start_server(folder)
    yield started
    stop_server(started)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_server(folder: Path, command: tuple[str, ...] = ("-m", "streamlit", "run", "app.py")) -> Server:
    """Starts the app on a free port, with its store and cache in a folder, and waits until it answers."""
    port, log = free_port(), folder / "server.log"
    env = {
        **os.environ,
        "KDNAS_DB": str(folder / "runs.db"),
        "KDNAS_CACHE": str(folder / "cache"),
        "STREAMLIT_SERVER_PORT": str(port),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Server(f"http://127.0.0.1:{port}", folder / "runs.db", log, process)
    wait_until_ready(started)
    return started


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    stop_server(server)
    pytest.fail(f"The server did not answer within {READY_S} s:\n{server.log.read_text()}")


def stop_server(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
