"""How fast are the pages of a large store, and what do open tabs receive?

Run it with `python -m benchmarks.dashboard`. It makes a store of many runs, one of them with many candidates,
through the store's own functions (`--keep FOLDER` makes it once), and measures, each in a server of its own
that nothing has warmed: the server's time for the first and for a later drawing of the home page and the page
of the large run, for an update that finds one new candidate and for one that finds nothing; and in Chromium
the time until a page is complete and the bytes that an update moves. Medians; JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.resampling import packed
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import LayerLoss, TeacherFacts
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.reward import kdnas_reward
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import RunSpec, SearchSpec, quick_spec

ROOT = Path(__file__).resolve().parents[1]
TEACHER = Architecture(6, 384, 1536, 12)
TEACHER_MS = 30.0
EPISODE = 20  # candidates
FEW = 8  # candidates of each other run
REPEATS = 5
CHROMIUM = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> None:
    """Makes the store if there is none, measures, and prints a line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="the folder of the store, made if there is none")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--draw", help=argparse.SUPPRESS)  # a page, drawn in this process
    given = parser.parse_args()
    if given.draw:
        print(json.dumps(_draw(given.draw, Path(os.environ["KDNAS_DB"]))))
        return
    with _folder(given.keep) as folder:
        db = folder / "runs.db"
        if not db.exists():
            began = time.perf_counter()
            large = make(db, given.runs, given.candidates)
            print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
        else:
            large = largest(db)
        found: dict[str, Any] = {"runs": given.runs, "candidates": given.candidates}
        for page in ("home", f"run {large}"):
            environment = {**os.environ, "KDNAS_DB": str(db), "KDNAS_CACHE": str(folder / "cache")}
            told = subprocess.run(
                [sys.executable, "-m", "benchmarks.dashboard", "--draw", page],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True,
            ).stdout  # fmt: skip
            found[page.split()[0]] = json.loads(told.splitlines()[-1])
            print(page, found[page.split()[0]], flush=True)
        found["browser"] = _in_browser(db, large, given.chromium, folder)
        print("browser", found["browser"])
        print(json.dumps(found))


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def make(db: Path, runs: int, candidates: int) -> int:
    """Makes a store of that many runs, of which the newest has that many candidates; returns its id."""
    with opened(db) as store:
        for number in range(runs - 1):
            _add_run(store, FEW, number)
        return _add_run(store, candidates, runs)


def largest(db: Path) -> int:
    """Returns the id of the newest run of a store, which may be of an earlier version."""
    with opened(db) as store:
        return store.runs()[0].id


def _add_run(store: Store, candidates: int, seed: int) -> int:
    episodes = -(-candidates // EPISODE)
    search = SearchSpec(episodes=max(1, min(episodes, 1_000)), candidates=min(EPISODE, candidates))
    spec = quick_spec(seed=seed).model_copy(update={"search": search, "space": RunSpec().space})
    spec = spec.filled_for(makes_vectors=True)
    spec = spec.model_copy(update={"space": spec.space.filled_from(TEACHER)})
    run = store.create_run(spec)
    store.claim_run(Worker.this_process())
    store.set_teacher(
        run, spec, TeacherFacts("packaged", TEACHER, 22_713_216, 5_600_000_000, _reading(TEACHER_MS, 0))
    )
    draw = random.Random(seed)
    shapes = SearchSpace.from_spec(spec.space, TEACHER).sample(draw, candidates, ())
    for episode, first in enumerate(range(0, candidates, EPISODE), start=1):
        store.begin_episode(run, episode, [(shape, 0.5) for shape in shapes[first : first + EPISODE]])
    for row in store.candidates(run):
        _judge(store, row.id, row.architecture, spec, draw)
    store.end_run(run, "finished")
    return run


def _judge(store: Store, candidate: int, shape: Architecture, spec: RunSpec, draw: random.Random) -> None:
    ms = TEACHER_MS * shape.flops(128) / TEACHER.flops(128) * draw.uniform(0.9, 1.3) + 0.4
    loss = min(0.95, 0.2 + 0.9 / (1 + shape.hidden_size / 40) + draw.uniform(0, 0.1))
    reading = _reading(ms, candidate)
    costs: dict[str, Any] = {"latency": reading.to_dict(), "parameters": 5_000_000, "flops": shape.flops(128)}
    if ms > TEACHER_MS / 2:
        store.update_candidate(candidate, state="over_budget", **costs)
        return
    layers = range(1, shape.layers + 1)
    losses = [
        LayerLoss(step, layer, layer, loss, "hidden_probe") for step in (0, 100, 200) for layer in layers
    ]
    store.add_layer_losses(candidate, losses)
    heads = tuple(range(1, shape.attention_heads + 1))
    noise = np.random.default_rng(candidate).normal(loss, 0.008, 100)
    store.update_candidate(
        candidate,
        state="done",
        loss=loss,
        loss_se=0.008,
        reward=kdnas_reward(loss, ms, TEACHER_MS, spec.search.reward),
        seconds=20.0,
        step=200,
        steps=200,
        cut_from=[asdict(LayerSource(layer, heads)) for layer in layers],
        resampled=packed(noise.tolist()),
        **costs,
    )


def _reading(ms: float, seed: int) -> LatencyReading:
    samples = np.random.default_rng(seed).normal(ms, 0.02 * ms, 100)
    p50, p95 = np.percentile(samples, (50, 95))
    return LatencyReading(
        float(p50), float(p95), tuple(map(float, samples)), TEACHER_MS, "onnxruntime", "float32", 1, 1, 128,
        "a machine", 0, clean=True,
    )  # fmt: skip


def _draw(page: str, db: Path) -> dict[str, float]:
    """Seconds of the server for a page: the first drawing of this process, a later one, and updates."""
    from streamlit.testing.v1 import AppTest

    from kdnas_core.dashboard.read import live
    from kdnas_core.dashboard.ui import places

    app = AppTest.from_file(str(ROOT / "kdnas_core" / "dashboard" / "entry.py"), default_timeout=300)
    _, *number = page.split()
    if number:
        app.query_params["run"] = number[0]
    began = time.perf_counter()
    app.run()
    if number:
        began = time.perf_counter()  # the home page had to come first
        app.switch_page(str(places.RUN)).run()
    found = {"cold": time.perf_counter() - began, "warm": _median(lambda: app.run())}
    assert not app.exception, app.exception
    if number:
        run = int(number[0])
        drawn = live.read_run(db, run)
        found["nothing_new"] = _median(lambda: live.newer(db, drawn))
        updates = []
        for repeat in range(REPEATS):
            with opened(db) as store:
                store.update_candidate(_done(store, run)[repeat], loss=0.5)
            began = time.perf_counter()
            app.run()
            updates.append(time.perf_counter() - began)
        found["one_new"] = median(updates)
    return {key: round(value, 4) for key, value in found.items()}


def _done(store: Store, run: int) -> list[int]:
    return [row.id for row in store.candidates(run) if row.state == "done"]


def _median(act: Any) -> float:
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return median(took)


def _in_browser(db: Path, run: int, chromium: str, folder: Path) -> dict[str, float]:
    """Seconds until pages are complete in Chromium, and the bytes of an update of the large run."""
    from playwright.sync_api import sync_playwright

    port = 8_655
    environment = {**os.environ, "KDNAS_DB": str(db), "KDNAS_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    found: dict[str, float] = {}
    received: list[int] = []
    try:
        wait_for(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.on(
                "websocket",
                lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))),
            )
            for name, address, sign in (
                ("home", "/", "[data-testid=stDataFrame]"),
                ("run", f"/run?run={run}", f".st-key-frontier_{run} .js-plotly-plot .plot-container"),
            ):
                took = []
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    page.goto(f"http://127.0.0.1:{port}{address}")
                    page.wait_for_selector(sign, state="attached", timeout=120_000)
                    page.wait_for_selector("[data-test-script-state=notRunning]", timeout=120_000)
                    took.append(time.perf_counter() - began)
                found[f"{name}_seconds"] = round(median(took), 2)
            page.wait_for_timeout(3_000)
            for name, changes in (("one_new_bytes", True), ("nothing_new_bytes", False)):
                moved = []
                for repeat in range(3):
                    page.wait_for_timeout(1_000)
                    received.clear()
                    if changes:
                        with opened(db) as store:
                            store.update_candidate(_done(store, run)[repeat], loss=0.1 - repeat / 100)
                    page.wait_for_timeout(13_000)  # a run that has ended is looked at each ten seconds
                    moved.append(sum(received))
                found[name] = median(moved)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return found


def wait_for(port: int) -> None:
    """Waits until a server answers."""
    for _ in range(150):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server did not answer.")


if __name__ == "__main__":
    main()
