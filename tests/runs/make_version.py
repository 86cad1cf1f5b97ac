"""Makes fixtures/version_N.db by the code of that version: `python -m tests.runs.make_version N` in its tree.

Versions 2, 3 and 5 to 10 were made so, once; later versions of the code must read these stores.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from kdnas_core.runs.store import opened
from kdnas_core.spec import quick_spec
from tests import filled_store

MADE = Path(__file__).parent / "fixtures"


def make(version: int) -> None:
    """Writes a store with a finished run, from version 3 with students and scorings, and a paused run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        finished = filled_store.fill(path, episodes=2)
        with opened(path) as store:
            if version >= 3 and not store.students():
                filled_store.add_students(store, finished)
            paused = filled_store.begin_run(store, quick_spec(seed=3))
            shapes = [row.architecture for row in store.candidates(finished)[:2]]
            judged, _ = filled_store.add_episode(store, paused, 1, shapes)
            filled_store.judge(store, paused, judged)
            store.end_run(paused, "paused")
        with closing(sqlite3.connect(path)) as whole:
            whole.execute("VACUUM INTO ?", [str(MADE / f"version_{version}.db")])


if __name__ == "__main__":
    make(int(sys.argv[1]))
