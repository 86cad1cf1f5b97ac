"""What do open pages of a running search cost it, and does the server hold out?

Run it with `python -m benchmarks.sessions --arms 0 8 --minutes 8`, on a machine with nothing else to do. For
each arm a server, a store and a cache of their own are made, a quick search is started, and so many sessions
open its page and follow it as a browser does, by Streamlit's own protocol, without drawing: a browser would
take its processor time on another machine. An arm ends with its search, or after so many minutes.
It prints, for each arm, the seconds and latencies of its candidates, errors, drawings and the server's
memory, and for two arms the ratios of shapes that both have judged. JSON last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks.dashboard import wait_for
from kdnas_core.errors import BadInput
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import opened

ROOT = Path(__file__).resolve().parents[1]
PORT = 8_667
LOOK_S = 5.0  # between looks at the server's memory


@dataclass
class Session:
    """A page that is open, and what it has received."""

    drawings: int = 0
    received: int = 0
    errors: list[str] = field(default_factory=list)
    hash: str = ""
    timers: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def follow(self, run: int) -> None:
        """Opens the page of a run and keeps it up to date, until cancelled."""
        address = f"ws://127.0.0.1:{PORT}/_stcore/stream"
        async with connect(address, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
            await self._ask(socket, run)
            async for data in socket:
                assert isinstance(data, bytes)
                self.received += len(data)
                self._take(ForwardMsg.FromString(data), socket, run)

    def _take(self, message: ForwardMsg, socket: ClientConnection, run: int) -> None:
        kind = message.WhichOneof("type")
        if kind == "navigation":
            self.hash = message.navigation.page_script_hash  # by which the page is asked for again
        elif kind == "auto_rerun":
            asked = message.auto_rerun
            again = self._again(socket, run, asked.interval, asked.fragment_id)
            self._stop(asked.fragment_id)
            self.timers[asked.fragment_id] = asyncio.create_task(again)
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self._stop(fragment)
        elif kind == "script_finished":
            self.drawings += 1
        elif kind == "delta" and message.delta.new_element.WhichOneof("type") == "exception":
            self.errors.append(message.delta.new_element.exception.message)

    def _stop(self, fragment: str) -> None:
        if fragment in self.timers:
            self.timers.pop(fragment).cancel()

    async def _again(self, socket: ClientConnection, run: int, seconds: float, fragment: str) -> None:
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(seconds)
                await self._ask(socket, run, fragment)

    async def _ask(self, socket: ClientConnection, run: int, fragment: str = "") -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.page_name, state.page_script_hash = f"run={run}", "run", self.hash
        state.fragment_id, state.is_auto_rerun = fragment, bool(fragment)
        await socket.send(message.SerializeToString())


async def arm(sessions: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Runs one arm, and returns its figures."""
    db, cache = folder / "runs.db", folder / "cache"
    environment = {**os.environ, "KDNAS_DB": str(db), "KDNAS_CACHE": str(cache), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={PORT}"]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [*command, "--server.headless=true"], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    search = subprocess.Popen(
        [sys.executable, "-m", "kdnas_core", "search", "--quick"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=log,
    )  # fmt: skip
    open_ones = [Session() for _ in range(sessions)]
    memory: list[float] = []
    try:
        await _first_run(db)
        wait_for(PORT)
        tasks = [asyncio.create_task(each.follow(1)) for each in open_ones]
        began, used = time.monotonic(), _processor_s(server.pid)
        while not memory or (time.monotonic() - began < 60 * minutes and search.poll() is None):
            await asyncio.sleep(LOOK_S)
            memory.append(psutil.Process(server.pid).memory_info().rss / 2**20)
        used = _processor_s(server.pid) - used
        ended = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for process in (server, search):
            process.terminate()
            process.wait()
        log.close()
    with opened(db, read_only=True) as store:
        judged = [row for row in store.candidates(1) if row.state in ("done", "pruned", "over_budget")]
    third = max(1, len(memory) // 3)
    parts = (memory[:third], memory[third:-third] or memory, memory[-third:])
    return {
        "sessions": sessions,
        "minutes": round((time.monotonic() - began) / 60, 2),
        "server_cores": round(used / (time.monotonic() - began), 3),
        "drawings": sum(each.drawings for each in open_ones),
        "megabytes": round(sum(each.received for each in open_ones) / 2**20, 1),
        "errors": [error for each in open_ones for error in each.errors] + [str(each) for each in ended],
        "logged": [line for line in (folder / "server.log").read_text().splitlines() if _is_trouble(line)],
        "memory_mib": [round(median(part)) for part in parts],
        "candidates": {row.architecture.key: _facts(row) for row in judged},
    }  # fmt: skip


async def _first_run(db: Path) -> None:
    for _ in range(600):
        with suppress(BadInput), opened(db, read_only=True) as store:  # there may be no store yet
            if store.runs():
                return
        await asyncio.sleep(0.2)
    raise SystemExit("The search did not begin.")


def _processor_s(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def _is_trouble(line: str) -> bool:
    return any(word in line for word in ("Traceback", "Error", "locked"))


def _facts(row: Candidate) -> dict[str, float | None]:
    return {"seconds": row.seconds, "ms": None if row.latency is None else row.latency.p50}


def ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Compares the candidates that two arms have both judged: the second by the first, medians."""
    one, other = first["candidates"], second["candidates"]
    both = [key for key in one if key in other]
    sums = [sum(arm[key]["seconds"] for key in both) for arm in (one, other)]
    timed = [key for key in both if one[key]["ms"] and other[key]["ms"]]
    if not both or not timed:
        return {"candidates": len(both)}
    return {
        "candidates": len(both),
        "seconds": round(median(other[key]["seconds"] / one[key]["seconds"] for key in both), 3),
        "all_seconds": round(sums[1] / sums[0], 3),
        "latency": round(median(other[key]["ms"] / one[key]["ms"] for key in timed), 3),
    }  # fmt: skip


def main() -> None:
    """Runs the arms one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", type=int, nargs="+", default=[0, 8], help="sessions of each")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most, of each")
    given = parser.parse_args()
    found = []
    for sessions in given.arms:
        with tempfile.TemporaryDirectory() as folder:
            found.append(asyncio.run(arm(sessions, given.minutes, Path(folder))))
        told = {name: value for name, value in found[-1].items() if name != "candidates"}
        print(told, f"{len(found[-1]['candidates'])} candidates", flush=True)
    compared = [ratios(found[0], other) for other in found[1:]]
    print(*compared, sep="\n")
    print(json.dumps({"arms": found, "ratios": compared}))


if __name__ == "__main__":
    main()
