"""The typed rows that the store hands out."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Literal

import psutil

from kdnas_core.architecture import Architecture
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.spec import RunSpec

RunState = Literal["queued", "running", "paused", "stopped", "interrupted", "finished", "failed"]
CandidateState = Literal["proposed", "over_budget", "distilling", "done", "failed"]

ACTIVE: tuple[RunState, ...] = ("queued", "running")
RESUMABLE: tuple[RunState, ...] = ("paused", "stopped", "interrupted", "failed")


@dataclass(frozen=True)
class Worker:
    """The process that serves a run: enough to tell it from a later one with the same pid."""

    pid: int
    created: float
    host: str

    @classmethod
    def this_process(cls) -> Worker:
        """The process that asks."""
        process = psutil.Process()
        return cls(process.pid, process.create_time(), platform.node())

    def is_elsewhere(self) -> bool:
        """Whether the process is on another host."""
        return self.host != platform.node()

    def is_alive(self) -> bool:
        """Whether the process still runs; a zombie does not, and one on another host cannot be told dead."""
        if self.is_elsewhere():
            return True
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher of a run, as it was measured when the run began."""

    name: str
    architecture: Architecture
    parameters: int
    flops: int
    latency: LatencyReading


@dataclass(frozen=True)
class Run:
    """One search. Times are seconds since the epoch; `seconds` is the time it was worked on."""

    id: int
    name: str
    state: RunState
    spec: RunSpec
    created_at: float
    finished_at: float | None
    heartbeat_at: float | None
    worker: Worker | None
    request: Literal["pause", "stop"] | None
    episode: int
    activity: str
    seconds: float
    error: str | None
    teacher: TeacherFacts | None

    @property
    def total(self) -> int:
        """Candidates that the whole search proposes at the most."""
        return self.spec.search.episodes * self.spec.search.candidates


@dataclass(frozen=True)
class Candidate:
    """One student of a search and all that was measured of it.

    `step` of `steps` is the progress of its mini-KD; `weights` says whether its weights are kept; `notes`
    are sentences about what could not be learnt as the spec has it; `languages` holds the final loss on each
    language of the corpus.
    """

    id: int
    run: int
    episode: int
    state: CandidateState
    architecture: Architecture
    parameters: int | None
    flops: int | None
    latency: LatencyReading | None
    loss: float | None
    reward: float | None
    predicted_reward: float | None
    scores: dict[str, float]
    seconds: float
    error: str | None
    notes: tuple[str, ...]
    languages: dict[str, float]
    step: int
    steps: int
    weights: bool

    @property
    def point(self) -> tuple[float, float]:
        """(latency in ms, held-out loss) as the frontier sees it; NaN, which never wins, where not known."""
        latency = float("nan") if self.latency is None else self.latency.p50
        return latency, float("nan") if self.loss is None else self.loss

    def to_dict(self) -> dict[str, Any]:
        """The candidate object of the command line's `--json`."""
        latency = self.latency
        return {
            "id": self.id,
            "episode": self.episode,
            "state": self.state,
            "architecture": self.architecture.to_dict(),
            "parameters": self.parameters,
            "flops": self.flops,
            "latency_ms": latency and {"p50": latency.p50, "p95": latency.p95, "n": len(latency.samples)},
            "speedup": latency and latency.speedup,
            "loss": self.loss,
            "reward": self.reward,
            "predicted_reward": self.predicted_reward,
            "scores": self.scores,
            "seconds": self.seconds,
            "error": self.error,
            "notes": list(self.notes),
            "languages": self.languages,
        }


@dataclass(frozen=True)
class LayerLoss:
    """The held-out loss of one student layer against one teacher layer after some steps of mini-KD.

    Layer 0 is the embedding output, the layer past the last is the prediction layer; `term` is the loss term.
    """

    step: int
    layer: int
    teacher_layer: int
    loss: float
    term: str = "hidden"
