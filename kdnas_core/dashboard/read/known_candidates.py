"""The candidates of runs that pages show, kept in the server, so that an update reads only what changed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from kdnas_core.dashboard.read import spare
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import Store

MOST_RUNS = 32
MANY = 1_000  # candidates read at once
_FIRST = -1  # before the revision of candidates of a store of an earlier version


@dataclass
class _Known:
    """The candidates of a run as of a revision, by id."""

    revision: int = _FIRST
    rows: dict[int, Candidate] = field(default_factory=dict)


_known: OrderedDict[tuple[Path, int, int, float], _Known] = OrderedDict()
_lock = Lock()  # sessions draw their pages in threads of one process


def candidates_of(store: Store, run: Run) -> tuple[int, list[Candidate]]:
    """Returns the candidates of a run in the order of proposal, without latency samples, and their revision.

    Args:
        store: that they are in; one file may replace another of the same name.
        run: of the store.
    """
    path = store.path.resolve()
    key = (path, path.stat().st_ino, run.id, run.created_at)
    with _lock:
        known = _known.setdefault(key, _Known())
        _known.move_to_end(key)
        revision = store.revision(run.id)
        if revision != known.revision:
            after = known.revision if known.revision < revision else _FIRST  # a copy of before was put back
            new = _by_id(store, run.id, after)
            known.rows = {**(known.rows if after == known.revision else {}), **new}
            known.revision = revision
            if len(new) >= MANY:
                spare.loaded()
        while len(_known) > MOST_RUNS:
            _known.popitem(last=False)
        return revision, list(known.rows.values())


def _by_id(store: Store, run: int, after: int) -> dict[int, Candidate]:
    return {row.id: row for row in store.candidates_since(run, after)}
