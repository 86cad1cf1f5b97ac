"""A job: a piece of work such as a run or a student, whose it is, and under which lease."""

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
LANES: dict[Lane, tuple[Kind, ...]] = {  # of which each has a worker: a check never waits for a search
    "long": ("runs", "students", "scorings", "sweeps"),
    "checks": ("checks",),
    "exports": ("exports",),
}
_NAME = re.compile(r"(s?)([0-9]{1,18})")  # as many digits as the store can hold


def lane_of(kind: Kind) -> Lane:
    """The lane in which a kind of work is served."""
    return next(lane for lane, kinds in LANES.items() if kind in kinds)


@dataclass(frozen=True)
class Job:
    """Which piece of work, by its id among those of its kind."""

    kind: Kind
    id: int

    @classmethod
    def named(cls, name: str) -> Job:
        """The run or student that a user names, as in `3` or `s3`.

        Raises:
            BadInput: it is no such name.
        """
        is_student, number = parts_of_name(name, "run")
        return cls("students" if is_student else "runs", number)

    @property
    def title(self) -> str:
        """What a sentence about it begins with, as in "Student s3"."""
        noun = self.kind.removesuffix("s").capitalize()
        return f"{noun} {'s' if self.kind == 'students' else ''}{self.id}"


def parts_of_name(name: str, other: str) -> tuple[bool, int]:
    """Whether a user names a student, as in `s3`, or something else, as in `3`; and the number.

    Args:
        name: as the user wrote it.
        other: what a plain number would name, for the refusal.

    Raises:
        BadInput: it is neither.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise BadInput(f"'{name}' names no {other} and no student; write a {other} as 3, a student as s3.")
    return bool(parts[1]), int(parts[2])


@dataclass(frozen=True)
class Lease:
    """A job as one worker has it: each claim of it has a higher fence than those before."""

    job: Job
    fence: int


@dataclass(frozen=True)
class Worker:
    """The process that serves a job."""

    pid: int
    host: str

    @classmethod
    def this_process(cls) -> Worker:
        """The process that asks."""
        return cls(os.getpid(), platform.node())

    @classmethod
    def from_json(cls, text: str) -> Worker:
        """The worker whose fields this is."""
        return cls(**json.loads(text))

    def is_elsewhere(self) -> bool:
        """Whether the process is on another host."""
        return self.host != platform.node()


@dataclass(frozen=True)
class Work:
    """What all kinds of work share: times are seconds since the epoch.

    Attributes:
        id: among its kind.
        state: as it is now: of work whose worker does not live, interrupted.
        created_at: when it was asked for.
        finished_at: when it was last ended, in whatever state.
        heartbeat_at: when its worker last said that it lives.
        worker: the process that serves it, or last did.
        fence: rises with each claim.
        attempts: claims since a worker last ended it itself.
        request: what is asked of its worker.
        activity: what is done now, in words.
        step: steps taken of the training in hand ...
        steps: ... of so many, 0 while that is not known.
        seconds: it was worked on.
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
        """Which piece of work it is."""
        raise NotImplementedError

    @property
    def lease(self) -> Lease:
        """Its last one."""
        return Lease(self.job, self.fence)
