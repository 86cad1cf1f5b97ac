"""Replaces the workers that a page starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnas_core.dashboard.act import controls, requests
from kdnas_core.errors import BadInput
from kdnas_core.runs import checks
from kdnas_core.runs.jobs import Lane, Worker
from kdnas_core.runs.records import Check
from kdnas_core.runs.store import opened


class Served:
    """Lets checks pass or fail at once; runs no other work.

    Attributes:
        refusal: the error of the next checks.
        checks: the requests that were checked.
        stores: those for which a worker of the long lane was started, once for each start.
        exports: the same for the lane of exports.
    """

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.checks: list[Check] = []
        self.stores: list[Path] = []
        self.exports: list[Path] = []

    def ensure_worker(self, db: Path, lane: Lane = "long") -> None:
        """Replaces `launch.ensure_worker`."""
        if lane != "checks":
            (self.stores if lane == "long" else self.exports).append(db)
            return
        with opened(db) as store:
            asked = store.claim(Worker.this_process(), ["checks"])
            assert isinstance(asked, Check)
            self.checks.append(asked)
            try:
                if self.refusal is not None:
                    raise BadInput(self.refusal)
                store.accept(asked.id, lambda: checks.queue_asked(store, asked))
            except BadInput as error:
                store.end(asked.job, "failed", str(error))
            else:
                store.end(asked.job, "finished")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Records the workers that pages start in a test, without a process."""
    made = Served()
    for module in (requests, controls):
        monkeypatch.setattr(module, "ensure_worker", made.ensure_worker)
    return made
