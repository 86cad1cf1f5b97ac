"""A job: a piece of work such as a run or a student, its worker and its lease."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import dataclass
from typing import Literal

from kdnas_core.errors import BadInput

RunState = Literal["queued", "running", "paused", "stopped", "interrupted", "finished", "failed"]
Kind = Literal["runs", "students", "scorings", "sweeps", "checks", "exports"]
Lane = Literal["long", "checks", "exports"]
ACTIVE: tuple[RunState, ...] = ("queued", "running")
RESUMABLE: tuple[RunState, ...] = ("paused", "stopped", "interrupted", "failed")
LANES: dict[Lane, tuple[Kind, ...]] = {  # each lane has a worker, so that a check never waits for a search
    "long": ("runs", "students", "scorings", "sweeps"),
    "checks": ("checks",),
    "exports": ("exports",),
}
_NAME = re.compile(r"(s?)([0-9]{1,18})")  # as many digits as the store can hold


def lane_of(kind: Kind) -> Lane:
    """Returns the lane that serves a kind of work."""
    return next(lane for lane, kinds in LANES.items() if kind in kinds)


@dataclass(frozen=True)
class Job:
    """Identifies a piece of work by its kind and its id within that kind."""

    kind: Kind
    id: int

    @classmethod
    def named(cls, name: str) -> Job:
        """Parses the name of a run or a student, as in `3` or `s3`.

        Raises:
            BadInput: it is malformed.
        """
        is_student, number = parts_of_name(name, "run")
        return cls("students" if is_student else "runs", number)

    @property
    def title(self) -> str:
        """Its name at the start of a sentence, as in "Student s3"."""
        noun = self.kind.removesuffix("s").capitalize()
        return f"{noun} {'s' if self.kind == 'students' else ''}{self.id}"


def parts_of_name(name: str, other: str) -> tuple[bool, int]:
    """Returns whether a name is that of a student, as in `s3`, and its number.

    Args:
        name: as the user wrote it.
        other: what a plain number names, for the error message.

    Raises:
        BadInput: it is malformed.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise BadInput(f"'{name}' names no {other} and no student; write a {other} as 3, a student as s3.")
    return bool(parts[1]), int(parts[2])


@dataclass(frozen=True)
class Lease:
    """One worker's claim of a job; each claim has a higher fence than those before."""

    job: Job
    fence: int


@dataclass(frozen=True)
class Worker:
    """The process that serves a job."""

    pid: int
    host: str

    @classmethod
    def this_process(cls) -> Worker:
        """Returns the worker of the current process."""
        return cls(os.getpid(), platform.node())

    @classmethod
    def from_json(cls, text: str) -> Worker:
        """Reads a worker from JSON."""
        return cls(**json.loads(text))

    def is_elsewhere(self) -> bool:
        """Returns whether the process is on another host."""
        return self.host != platform.node()


@dataclass(frozen=True)
class Work:
    """The fields that all kinds of work share; times are in seconds since the epoch.

    Attributes:
        id: unique within its kind.
        state: the current state; "interrupted" if its worker has died.
        created_at: when it was queued.
        finished_at: when it last ended, in any state.
        heartbeat_at: time of its worker's last heartbeat.
        worker: the process that serves it, or served it last.
        fence: rises with each claim.
        attempts: number of claims since a worker last ended it in an orderly way.
        request: what the user asked its worker to do.
        activity: what the worker is doing, in words.
        step: steps taken of the current training.
        steps: its steps in all; 0 if not known yet.
        seconds: time spent on it.
        error: why it failed.
    """

    id: int
    state: RunState
    created_at: float
    finished_at: float | None
    heartbeat_at: float | None
    worker: Worker | None
    fence: int
    attempts: int
    request: Literal["pause", "stop"] | None
    activity: str
    step: int
    steps: int
    seconds: float
    error: str | None

    @property
    def job(self) -> Job:
        """Its kind and id."""
        raise NotImplementedError

    @property
    def lease(self) -> Lease:
        """Its last lease."""
        return Lease(self.job, self.fence)
