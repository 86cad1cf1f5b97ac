"""How far a piece of work is, written to the store now and then and told to whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from kdnas_core.runs.rows import Job
from kdnas_core.runs.store import Store

STEP_SECONDS = 0.5  # between two rows of progress
WAITING = "waiting for another process to leave the device"

Told = Callable[[str, int, int], None]  # what is done, in words, and steps taken, of how many (0: not known)


class Progress:
    """Of a student or a scoring.

    Args:
        store: open for writing, in this thread.
        job: whose progress.
        write: sets columns of its row.
        check: called often; raises to end the work.
        told: called at each step and whenever something else is done.
    """

    def __init__(
        self,
        store: Store,
        job: Job,
        write: Callable[..., None],
        check: Callable[[], None],
        told: Told,
    ) -> None:
        self.store, self.job, self.check, self.told = store, job, check, told
        self._write = write
        self._activity, self._waiting = "", False
        self._steps, self._written = 0, 0.0

    def say(self, activity: str) -> None:
        """Says what is done now."""
        self.check()
        self._activity, self._waiting = activity, False
        self.store.set_activity(self.job, activity)
        self.told(activity, 0, 0)

    def waiting(self) -> None:
        """Says that another process has the device."""
        self.check()
        if not self._waiting:
            self.store.set_activity(self.job, WAITING)
            self._waiting = True

    def step(self, taken: int, steps: int) -> None:
        """Says how many steps are taken, of how many."""
        try:
            self.check()
        except Exception:
            self._write(self.job.id, step=taken, steps=steps)  # what is kept
            raise
        if self._waiting:  # the device is ours again
            self.say(self._activity)
        if self._is_due(taken, steps):
            self._write(self.job.id, step=taken, steps=steps)
            self._steps, self._written = steps, time.monotonic()
        self.told(self._activity, taken, steps)

    def _is_due(self, taken: int, steps: int) -> bool:
        return taken == steps or steps != self._steps or time.monotonic() - self._written > STEP_SECONDS
