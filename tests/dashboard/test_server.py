from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from kdnas_core.dashboard import server
from kdnas_core.errors import BadInput
from kdnas_core.runs.store import opened
from kdnas_core.spec import quick_spec
from tests.filled_store import fill

ROOT = Path(__file__).resolve().parents[2]


def run_apart(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine in a separate thread, since Playwright leaves an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start(db: Path, port: int) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "KDNAS_DB": str(db),
        "STREAMLIT_SERVER_PORT": str(port),
        "KDNAS_CACHE": str(db.parent),
    }
    return subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_answer_carries_the_headers_that_keep_it_out_of_foreign_frames() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOW")]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    run_apart(server.SecurityHeaders(app)({"type": "http"}, receive, send))
    headers = sent[0]["headers"]
    assert (b"x-content-type-options", b"nosniff") in headers
    assert (b"referrer-policy", b"no-referrer") in headers
    assert [value for name, value in headers if name.lower() == b"x-frame-options"] == [b"DENY"]


def test_a_free_port_is_accepted_and_a_taken_one_named(free_port: int) -> None:
    server.check_port(free_port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(BadInput, match=rf"Port {free_port} .*STREAMLIT_SERVER_PORT"):
            server.check_port(free_port)


@pytest.mark.parametrize("text", ["x", "0", "-1", "70000", "80.5"])
def test_what_is_no_port_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", text)
    with pytest.raises(BadInput, match="STREAMLIT_SERVER_PORT"):
        server.chosen_port()


def test_the_port_is_the_one_of_the_environment_or_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "9123")
    assert server.chosen_port() == 9123
    monkeypatch.delenv("STREAMLIT_SERVER_PORT")
    assert server.chosen_port() == 8501


class FakeApp:
    """An app that only records how it was run."""

    def __init__(self) -> None:
        self.ran_with: list[dict[str, object]] = []

    def run(self, *, config: dict[str, object]) -> None:
        self.ran_with.append(config)


@pytest.fixture
def started(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[FakeApp, list[Path]]]:
    """Runs `main` on a store in an empty folder, and only records the workers."""
    served: list[Path] = []
    app = FakeApp()
    monkeypatch.setattr(server, "ensure_worker", served.append)
    monkeypatch.setenv("KDNAS_DB", str(tmp_path / "runs.db"))
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", str(free_port))

    def run() -> tuple[FakeApp, list[Path]]:
        server.main(app)  # type: ignore[arg-type]
        return app, served

    return run


def test_a_port_in_use_ends_the_start_with_one_sentence_and_nothing_written(
    tmp_path: Path,
    free_port: int,
    started: Callable[[], tuple[FakeApp, list[Path]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(SystemExit) as ended:
            started()
    assert ended.value.code == 2
    assert f"Port {free_port} is in use" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_first_start_queues_the_quick_search_and_says_where_to_look_and_how_to_stop_it(
    tmp_path: Path,
    free_port: int,
    started: Callable[[], tuple[FakeApp, list[Path]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    app, served = started()
    told = capsys.readouterr().out
    assert app.ran_with == [{"server.port": free_port}]
    assert served == [tmp_path / "runs.db"]
    assert f"http://127.0.0.1:{free_port}" in told
    assert "stop 1" in told
    with opened(tmp_path / "runs.db", read_only=True) as store:
        assert [run.spec for run in store.runs()] == [quick_spec()]


def test_a_start_with_a_run_in_the_store_starts_no_other(
    tmp_path: Path, started: Callable[[], tuple[FakeApp, list[Path]]]
) -> None:
    fill(tmp_path / "runs.db", episodes=1)
    app, served = started()
    assert len(app.ran_with) == 1
    assert served == []
    with opened(tmp_path / "runs.db", read_only=True) as store:
        assert len(store.runs()) == 1


@pytest.mark.slow
def test_a_file_that_is_no_store_ends_the_start_with_one_sentence(tmp_path: Path, free_port: int) -> None:
    db = tmp_path / "runs.db"
    db.write_bytes(b"not a database at all, but long enough to look at" * 20)
    ended = start(db, free_port)
    assert ended.returncode == 2
    assert "not a database" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_store_does_not_keep_the_server_from_saying_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KDNAS_DB", str(tmp_path))

    async def start_up() -> None:
        async with server.lifespan(object()):  # type: ignore[arg-type]
            pass

    run_apart(start_up())
    assert "cannot hold the runs" in caplog.text


@pytest.mark.parametrize("is_queued", [True, False])
def test_what_was_queued_is_taken_up_when_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_queued: bool
) -> None:
    db = tmp_path / "runs.db"
    with opened(db) as store:
        run = store.create_run(quick_spec())
        check = store.create_check("runs", quick_spec())
        if not is_queued:
            store.ask(run, "stop")
            store.ask(store.check(check).job, "stop")
    served: list[tuple[Path, str]] = []
    monkeypatch.setenv("KDNAS_DB", str(db))
    monkeypatch.setattr(server, "ensure_worker", lambda *asked: served.append(asked))

    async def start_up() -> None:
        async with server.lifespan(object()):  # type: ignore[arg-type]
            pass

    run_apart(start_up())
    assert served == ([(db, "long"), (db, "checks")] if is_queued else [])
