"""Workers that are killed, stopped or doubled, or whose clock steps, lose nothing and do nothing twice.

`KDNAS_KILLS=30` sets the number of kills. The clock steps if Debian's faketime is installed, or if
`KDNAS_FAKETIME` names its library.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import opened
from kdnas_core.spec import RunSpec
from tests.runs.test_worker import finished_in, looking_at, start_worker, workers_of
from tests.tiny_runs import own_machine, remember_latencies, tiny_run, wait_for

KILLS = int(os.environ.get("KDNAS_KILLS", "5"))
FAKETIME = Path(os.environ.get("KDNAS_FAKETIME", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"))


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture
def spec(tiny_teacher: Path, corpus_file: Path) -> RunSpec:
    spec = tiny_run(tiny_teacher, corpus_file, search={"episodes": 4, "candidates": 5, "keep_weights": "all"})
    remember_latencies(spec)
    return spec


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "runs.db"
    yield path
    for process in workers_of(path):
        process.kill()


def finished(db: Path, run: int) -> dict[int, Candidate]:
    with looking_at(db) as store:
        return {row.id: row for row in finished_in(store.candidates(run))}


def check_whole(db: Path, run: int, kept: dict[int, Candidate]) -> None:
    with looking_at(db) as store:
        row, candidates = store.run(run), store.candidates(run)
        assert row.state == "finished"
        assert {candidate.id: candidate for candidate in candidates if candidate.id in kept} == kept
        assert len({candidate.architecture for candidate in candidates}) == len(candidates) == row.total
        assert all(store.layer_losses(candidate.id) for candidate in candidates if candidate.state == "done")
        assert {candidate.state for candidate in candidates} <= {"done", "pruned", "over_budget"}


@pytest.mark.slow
def test_kills_at_random_moments_beside_a_second_worker_and_a_search_lose_nothing(
    db: Path, tmp_path: Path, spec: RunSpec
) -> None:
    rng = random.Random(KILLS)
    with opened(db) as store:
        run = store.create_run(spec)
    (tmp_path / "spec.json").write_text(spec.model_copy(update={"seed": 8}).to_json())
    line = [
        sys.executable,
        "-m",
        "kdnas_core",
        "search",
        "--spec",
        str(tmp_path / "spec.json"),
        "--db",
        str(db),
    ]
    foreground = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept: dict[int, Candidate] = {}
    fences = []
    for _ in range(KILLS):
        pair = [start_worker(db), start_worker(db)]
        with opened(db) as store:
            wait_for(lambda: store.run(run).state in ("running", "finished"), seconds=300)
            if store.run(run).state == "finished":
                break
            fences.append(store.run(run).fence)
            time.sleep(rng.uniform(0.0, 1.5))
            serving = store.run(run).worker
            assert serving is not None
            os.kill(serving.pid, signal.SIGKILL)
            for process in pair:
                process.kill()
                process.wait()
            wait_for(lambda: store.run(run).state in ("interrupted", "finished"), seconds=5)
            now = finished(db, run)
            assert {row: now.get(row) for row in kept} == kept, "a finished candidate changed"
            kept = now
            if store.run(run).state == "finished":
                break
            # here the kills, not the candidates, ended these attempts
            for candidate in store.candidates(run):
                if candidate.id in kept:
                    continue
                store.update_candidate(candidate.id, attempts=0)
            store.resume(run)
    assert fences == sorted(set(fences))
    assert start_worker(db).wait(timeout=300) == 0
    assert foreground.wait(timeout=300) == 0
    check_whole(db, run, kept)
    with looking_at(db) as store:
        other = next(row.id for row in store.runs() if row.id != run)
    check_whole(db, other, {})


@pytest.mark.slow
@pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's faketime")
def test_a_clock_that_steps_by_an_hour_takes_no_run_from_its_worker(
    db: Path, tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    with opened(db) as store:
        run = store.create_run(spec)
    with monkeypatch.context() as stepping:
        for name, value in {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }.items():
            stepping.setenv(name, value)
        process = start_worker(db)
    with opened(db) as store:
        for step in ("+3600", "-3600", "+0"):
            wait_for(lambda: store.run(run).state == "running")
            offset.write_text(step)
            time.sleep(1.5)
            if store.run(run).state == "finished":
                break
            assert store.run(run).state == "running"
            assert store.resume(run) == "running"
            assert store.run(run).fence == 1
        assert process.wait(timeout=300) == 0
        assert store.run(run).seconds < 300
    check_whole(db, run, {})
