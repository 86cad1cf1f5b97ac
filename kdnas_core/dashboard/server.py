"""Starts the server, prepares the store, adds security headers, and starts a first search if needed."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import App, config

from kdnas_core.dashboard.read import live, spare
from kdnas_core.dashboard.ui import live_chart
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import LANES
from kdnas_core.runs.launch import ensure_worker
from kdnas_core.runs.store import opened
from kdnas_core.spec import quick_spec

log = logging.getLogger(__name__)

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'; base-uri 'self'; form-action 'self'"),
    (b"referrer-policy", b"no-referrer"),
)


class SecurityHeaders:
    """Adds headers to every response: other sites can neither frame the pages nor see their addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name, value) for name, value in message["headers"] if name.lower() not in _NAMES]
                message = {**message, "headers": [*given, *HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


_NAMES = {name for name, _ in HEADERS}

middleware = [Middleware(SecurityHeaders)]
routes = live_chart.ROUTES


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    """Prepares the store before the first page, and starts workers for its queued work.

    If the store cannot be used, logs the reason; every page shows it too.
    """
    try:
        prepare(live.database())
    except BadInput as error:
        log.error("%s", error)
        yield
        return
    # no page waits for these
    others = [asyncio.create_task(asyncio.to_thread(take_up, live.database()))]
    others.append(asyncio.create_task(asyncio.to_thread(spare.load_pages)))
    yield
    await asyncio.gather(*others)


def prepare(db: Path) -> bool:
    """Creates or migrates the store, and returns whether it has a run.

    Raises:
        BadInput: it cannot be used.
    """
    with opened(db) as store:
        return bool(store.runs())


def take_up(db: Path) -> None:
    """Starts workers for queued work that no worker serves, for example after a restart of the machine."""
    with opened(db) as store:
        waiting = [lane for lane in LANES if store.is_waiting(lane)]
    for lane in waiting:
        ensure_worker(db, lane)


def main(app: App) -> None:
    """Runs the server for `python app.py`, with a first search if the store has none."""
    db = live.database()
    try:
        port = chosen_port()
        check_port(port)
        first = not prepare(db)
        run = start_first_search(db) if first else None
    except BadInput as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print(_greeting(run, port), flush=True)
    app.run(config={"server.port": port})


def chosen_port() -> int:
    """Returns the port: `STREAMLIT_SERVER_PORT`, which `App.run` ignores, else that of the config.

    Raises:
        BadInput: it is not a port.
    """
    port = os.environ.get("STREAMLIT_SERVER_PORT") or str(config.get_option("server.port"))
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise BadInput(f"STREAMLIT_SERVER_PORT is {port!r}; set it to a port, such as 8502.")
    return int(port)


def check_port(port: int) -> None:
    """Checks that a port is free.

    Raises:
        BadInput: another program uses it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as the server binds: a port with only closed connections is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise BadInput(
                f"Port {port} is in use; set STREAMLIT_SERVER_PORT to another, such as {port + 1}."
            ) from None


def start_first_search(db: Path) -> int:
    """Queues the quick search, starts a worker for it, and returns the run's id."""
    with opened(db) as store:
        run = store.create_run(quick_spec())
    ensure_worker(db)
    return run


def _greeting(first_run: int | None, port: int) -> str:
    address = f"http://127.0.0.1:{port}"
    if first_run is None:
        return f"KD-NAS Studio at {address}; Ctrl+C ends the server, searches go on."
    return (
        f"KD-NAS Studio at {address}, where a first quick search has been started.\n"
        f"Stop it on the page, or with `{sys.executable} -m kdnas_core stop {first_run}`.\n"
        "Ctrl+C ends the server; searches go on."
    )
