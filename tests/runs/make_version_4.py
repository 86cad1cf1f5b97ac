"""Made fixtures/version_4.db, once, with the code of version 4: `python -m tests.runs.make_version_4`.

Do not make it again: later versions of the code must read this store.
"""

from __future__ import annotations

from pathlib import Path

from kdnas_core.runs.store import Store
from kdnas_core.spec import SweepSpec, quick_spec
from tests.filled_store import add_episode, add_students, begin_run, judge, reading
from tests.runs.make_version_1 import SHAPES, write

MADE = Path(__file__).parent / "fixtures" / "version_4.db"


def _fill(store: Store) -> None:
    """Run 1 is finished, with students, scorings and a sweep; run 2 is paused with a judged candidate."""
    finished = begin_run(store)
    for candidate in add_episode(store, finished, 1, SHAPES):
        judge(store, finished, candidate)
    store.end_run(finished, "finished")
    add_students(store, finished)
    sweep = store.create_sweep(SweepSpec(), 1)
    store.add_reading(sweep, reading(3.0))
    paused = begin_run(store, quick_spec(seed=3))
    judged, _ = add_episode(store, paused, 1, SHAPES[::2])
    judge(store, paused, judged)
    store.end_run(paused, "paused")


if __name__ == "__main__":
    write(MADE, _fill)
