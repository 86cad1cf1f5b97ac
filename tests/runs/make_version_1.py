"""Made fixtures/version_1.db, once, with the code of version 1: `python -m tests.runs.make_version_1`.

Do not make it again: later versions of the code must read this store.
"""

from __future__ import annotations

import platform
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdnas_core.architecture import Architecture
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import RunSpec, SearchSpec
from tests.filled_store import TEACHER, add_episode, begin_run, judge, teacher_facts

MADE = Path(__file__).parent / "fixtures" / "version_1.db"

SHAPES = [
    Architecture(3, 192, 768, 12),
    Architecture(6, 384, 1536, 12),  # as slow as the teacher: over budget
    Architecture(4, 288, 384, 6, "relu"),
]


def _finished(store: Store) -> None:
    run = begin_run(store)
    for candidate in add_episode(store, run, 1, SHAPES):
        judge(store, run, candidate)
    store.end_run(run, "finished")


def _killed_and_paused(store: Store) -> None:
    spec = RunSpec(name="killed", seed=3, search=SearchSpec(controller="random", episodes=2, candidates=4))
    run = store.create_run(spec)
    store.claim_run(Worker(pid=1, host=platform.node()))
    filled = spec.model_copy(update={"space": spec.space.filled_from(TEACHER)})
    store.set_teacher(run, filled, teacher_facts())
    done, failed, half, proposed = add_episode(
        store, run, 1, [*SHAPES[::2], replace(SHAPES[0], layers=4), replace(SHAPES[0], layers=5)]
    )
    judge(store, run, done)
    store.update_candidate(failed, state="failed", error="the loss was nan at step 3", seconds=1.5)
    judge(store, run, half)
    store.update_candidate(half, state="distilling", loss=None, reward=None, seconds=0, step=40, weights=0)
    assert store.candidate(proposed).state == "proposed"
    store.ask(run, "pause")


def write(made: Path, fill: Callable[[Store], None]) -> None:
    """Writes a store into one file, without the log that WAL keeps beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with opened(path) as store:
            fill(store)
        made.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM INTO ?", [str(made)])
        connection.close()


def _fill(store: Store) -> None:
    _finished(store)
    _killed_and_paused(store)


if __name__ == "__main__":
    write(MADE, _fill)
