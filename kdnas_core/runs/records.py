"""The typed rows that the store returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.data.tasks import PROXY
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Kind, Work
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import METHOD, DistilSpec, ExportSpec, RunSpec, ScoreSpec, SweepSpec

CandidateState = Literal["proposed", "over_budget", "distilling", "pruned", "done", "failed"]

Scored = Literal["student", "teacher", "control"]  # whose score; a candidate counts as the student


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher of a run, as measured when the run began."""

    name: str
    architecture: Architecture
    parameters: int
    flops: int
    latency: LatencyReading

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields by name, ready for JSON."""
        shape, latency = self.architecture.to_dict(), self.latency.to_dict()
        return {**vars(self), "architecture": shape, "latency": latency}


@dataclass(frozen=True)
class TeacherLayerFacts:
    """What the layers of a run's students are compared with.

    Attributes:
        floors: for each teacher layer 0..N, by width 1..H the least error of a student layer of that width;
            NaN if not known.
        similarity: CKA of each two teacher layers 0..N.
    """

    floors: list[list[float]]
    similarity: list[list[float]]


@dataclass(frozen=True)
class Run(Work):
    """One search.

    `outlook` is that after its last episode, None before the first is over; runs of one `method` compare.
    Name, note and tags are the user's; an archived run is not listed unless it is asked for.
    """

    name: str
    spec: RunSpec
    episode: int
    teacher: TeacherFacts | None
    outlook: Outlook | None = None
    method: int = METHOD
    note: str = ""
    tags: tuple[str, ...] = ()
    archived: bool = False

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("runs", self.id)

    @property
    def total(self) -> int:
        """The most candidates that the search can propose."""
        return self.spec.search.most_candidates


@dataclass(frozen=True)
class Candidate:
    """A student that a search proposed, with its measurements.

    `step` of `steps` is the progress of its mini-KD; `weights` is true if its weights are kept; `notes` are
    sentences on terms that were left out, or a result that was remembered; `languages` holds the final loss
    on each language of the corpus. `estimated_ms` is its estimated latency, if it was not measured, or not
    before its first rung. The loss of a pruned candidate is that of its rung, and its reward an estimate.
    `loss_se` is the standard error of the loss over held-out texts, if the yardstick has one, and `resampled`
    the loss on samples of these texts, packed, the same samples for each candidate of a run; `cut_from` has
    the source of each layer, if the student was cut out of the teacher.
    `attempts` counts the attempts that ended their process.
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
    estimated_ms: float | None = None
    loss_se: float | None = None
    resampled: bytes = b""
    cut_from: tuple[LayerSource, ...] = ()
    attempts: int = 0

    @property
    def rung(self) -> int | None:
        """The steps after which it was pruned; None unless it was."""
        return self.step if self.state == "pruned" else None

    @property
    def stopped(self) -> str | None:
        """When it was pruned, in words; None unless it was."""
        if self.rung is None:
            return None
        return f"stopped {f'after {self.rung}' if self.rung else 'before the first'} of {self.steps} steps"

    @cached_property
    def proxy_score(self) -> float | None:
        """The mean of its scores on the proxies of its run's tasks; None if there are none."""
        scores = [value for task, value in self.scores.items() if task.endswith(PROXY)]
        return fmean(scores) if scores else None

    @cached_property
    def point(self) -> tuple[float, float]:
        """Its point on the frontier, (latency in ms, error); unknown values are NaN, which is never on it.

        The error is 1 - score if the run has tasks, else the held-out loss.
        """
        latency = float("nan") if self.latency is None else self.latency.p50
        if self.proxy_score is not None:
            return latency, 1 - self.proxy_score
        return latency, float("nan") if self.loss is None else self.loss

    @cached_property
    def figures(self) -> tuple[float, float, float, float, float]:
        """Its p50 and p95 in ms, speed-up, error, and the error's standard error, 0 if that is not known.

        NaN is what was not measured.
        """
        latency = self.latency
        if latency is None:
            return math.nan, math.nan, math.nan, self.point[1], self.loss_se or 0.0
        return latency.p50, latency.p95, latency.speedup, self.point[1], self.loss_se or 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the candidate object of the command line's `--json`."""
        latency = self.latency
        return {
            "id": self.id,
            "episode": self.episode,
            "state": self.state,
            "architecture": self.architecture.to_dict(),
            "parameters": self.parameters,
            "flops": self.flops,
            "latency_ms": latency and {"p50": latency.p50, "p95": latency.p95, "n": latency.n},
            "speedup": latency and latency.speedup,
            "estimated_ms": self.estimated_ms,
            "loss": self.loss,
            "loss_se": self.loss_se,
            "rung": self.rung,
            "reward": self.reward,
            "predicted_reward": self.predicted_reward,
            "scores": self.scores,
            "seconds": self.seconds,
            "error": self.error,
            "notes": list(self.notes),
            "languages": self.languages,
            "cut_from": [asdict(source) for source in self.cut_from],
        }


@dataclass(frozen=True)
class LayerLoss:
    """The held-out loss of one student layer against one teacher layer after some steps of training.

    Layer 0 is the embedding output, the layer past the last is the prediction layer; `term` is the loss term.
    """

    step: int
    layer: int
    teacher_layer: int
    loss: float
    term: str = "hidden"


@dataclass(frozen=True)
class Student(Work):
    """A candidate distilled in full, or a task-specific student.

    Attributes:
        run: of its candidate.
        candidate: has its architecture.
        parent: the student whose weights it begins with, for a task or to go on with other text, if any; it
            may have been deleted since: ids are never reused.
        spec: how it is distilled.
        loss: held-out loss, comparable with a candidate's; for a task-specific student, of its predictions.
        notes: sentences on what differs from the spec.
        languages: the loss on each language of the corpus.
        loss_se: standard error of the loss over held-out texts, if the yardstick has one.
        cut_from: the source of each layer, if it was cut out of the teacher.
    """

    run: int
    candidate: int
    parent: int | None
    spec: DistilSpec
    loss: float | None
    notes: tuple[str, ...]
    languages: dict[str, float]
    loss_se: float | None = None
    cut_from: tuple[LayerSource, ...] = ()

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("students", self.id)

    @property
    def name(self) -> str:
        """Its name as a user writes it: s3."""
        return f"s{self.id}"

    @property
    def seconds_left(self) -> float | None:
        """The time left of its training at the pace so far, in seconds; None if unknown."""
        if self.state != "running" or not self.step or not self.steps:
            return None
        return self.seconds / self.step * max(0, self.steps - self.step)

    def to_dict(self) -> dict[str, Any]:
        """Returns the student object of the command line's `--json`."""
        return {
            "student": self.name,
            "run": self.run,
            "candidate": self.candidate,
            "parent": None if self.parent is None else f"s{self.parent}",
            "task": self.spec.task,
            "state": self.state,
            "spec": self.spec.model_dump(),
            "step": self.step,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "seconds_left": self.seconds_left,
            "activity": self.activity,
            "loss": self.loss,
            "loss_se": self.loss_se,
            "notes": list(self.notes),
            "languages": self.languages,
            "error": self.error,
            "created_at": self.created_at,
        }


@dataclass(frozen=True)
class _OfModel(Work):
    """Work on a candidate or a student."""

    run: int
    candidate: int | None
    student: int | None

    @property
    def subject(self) -> str:
        """The name of what is worked on, as a user writes it: 12 or s3."""
        return str(self.candidate) if self.student is None else f"s{self.student}"


@dataclass(frozen=True)
class Scoring(_OfModel):
    """The scoring of a candidate or a student, and of its teacher, on tasks.

    Attributes:
        run: of its candidate.
        candidate: id of the scored candidate; None if a student is scored.
        student: id of the scored student; None if a candidate is scored.
        spec: has the tasks and the settings.
    """

    spec: ScoreSpec

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("scorings", self.id)


@dataclass(frozen=True)
class Sweep(Work):
    """Measurements of a candidate's latency in several runtimes, batch sizes and lengths.

    They apply to every student that has its architecture.

    Attributes:
        run: of its candidate.
        candidate: id of the measured candidate.
        spec: has the runtimes, batch sizes and lengths.
    """

    run: int
    candidate: int
    spec: SweepSpec

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("sweeps", self.id)


Asked = RunSpec | DistilSpec | ScoreSpec | SweepSpec


@dataclass(frozen=True)
class Check(Work):
    """The check of a page's request, which queues the requested work if it passes.

    Attributes:
        wanted: the kind of the requested work.
        sources: the candidates or students to work on, in order; none for a run.
        spec: of the requested work.
        made: ids of the queued work.
    """

    wanted: Kind
    sources: tuple[str, ...]
    spec: Asked
    made: tuple[int, ...]

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("checks", self.id)


@dataclass(frozen=True)
class Export(_OfModel):
    """An export of a candidate or a student.

    Attributes:
        run: of its candidate.
        candidate: id of the exported candidate; None if a student is exported.
        student: id of the exported student; None if a candidate is exported.
        spec: has the folder and the formats.
    """

    spec: ExportSpec

    @property
    def job(self) -> Job:
        """Its kind and id."""
        return Job("exports", self.id)


AnyWork = Run | Student | Scoring | Sweep | Check | Export


@dataclass(frozen=True)
class Score:
    """The score of one model by one metric of a task.

    Attributes:
        subject: whose score: the student's (or candidate's), its teacher's, or the control's.
        task: its name.
        metric: its name; "metric, split" if the task has several scored splits.
        seed: number of the fine-tuned model, counted from 0.
        value: the score.
        rate: the learning rate; None without training.
        error: the standard error of the value over the scored rows; None if it is not known.
        chance: the value of always predicting the most frequent class; None if that is no prediction, or not
            known.
    """

    subject: Scored
    task: str
    metric: str
    seed: int
    value: float
    rate: float | None = None
    error: float | None = None
    chance: float | None = None
