"""The typed rows that the store hands out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.data.tasks import PROXY
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Kind, Work
from kdnas_core.spec import DistilSpec, ExportSpec, RunSpec, ScoreSpec, SweepSpec

CandidateState = Literal["proposed", "over_budget", "distilling", "done", "failed"]

Scored = Literal["student", "teacher", "control"]  # whose score; a candidate's own is the student's


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher of a run, as it was measured when the run began."""

    name: str
    architecture: Architecture
    parameters: int
    flops: int
    latency: LatencyReading

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, ready for JSON."""
        shape, latency = self.architecture.to_dict(), self.latency.to_dict()
        return {**vars(self), "architecture": shape, "latency": latency}


@dataclass(frozen=True)
class Run(Work):
    """One search."""

    name: str
    spec: RunSpec
    episode: int
    teacher: TeacherFacts | None

    @property
    def job(self) -> Job:
        """Which piece of work it is."""
        return Job("runs", self.id)

    @property
    def total(self) -> int:
        """Candidates that the whole search proposes at the most."""
        return self.spec.search.episodes * self.spec.search.candidates


@dataclass(frozen=True)
class Candidate:
    """One student of a search and all that was measured of it.

    `step` of `steps` is the progress of its mini-KD; `weights` says whether its weights are kept; `notes`
    are sentences about what could not be learnt as the spec has it; `languages` holds the final loss on each
    language of the corpus. `estimated_ms` is the estimated latency of one that was not measured,
    since it would have been far over the budget. `loss_se` is the standard error of the loss over held-out
    texts, where the yardstick has one; `cut_from` says what each layer began with, where it was cut out.
    `attempts` counts those that ended their process.
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
    cut_from: tuple[LayerSource, ...] = ()
    attempts: int = 0

    @property
    def proxy_score(self) -> float | None:
        """The mean of its scores on the proxies of its run's tasks; None where the run has none."""
        scores = [value for task, value in self.scores.items() if task.endswith(PROXY)]
        return fmean(scores) if scores else None

    @property
    def point(self) -> tuple[float, float]:
        """(latency in ms, error) as the frontier sees it; NaN, which never wins, where not known.

        The error is 1 - score where the run has tasks, else the held-out loss.
        """
        latency = float("nan") if self.latency is None else self.latency.p50
        if self.proxy_score is not None:
            return latency, 1 - self.proxy_score
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
            "latency_ms": latency and {"p50": latency.p50, "p95": latency.p95, "n": latency.n},
            "speedup": latency and latency.speedup,
            "estimated_ms": self.estimated_ms,
            "loss": self.loss,
            "loss_se": self.loss_se,
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
    """The held-out loss of one student layer against one teacher layer after some steps of mini-KD.

    Layer 0 is the embedding output, the layer past the last is the prediction layer; `term` is the loss term.
    """

    step: int
    layer: int
    teacher_layer: int
    loss: float
    term: str = "hidden"


@dataclass(frozen=True)
class Student(Work):
    """A candidate that is distilled in full, or a student made from one for a task.

    Attributes:
        run: of its candidate.
        candidate: whose architecture it has.
        parent: the student whose weights it begins with; None for none, or the candidate's. It may have been
            deleted since: ids are never given again.
        spec: how it is distilled.
        loss: held out, comparable with a candidate's; of a task-specific student that of its predictions.
        notes: sentences about what could not be learnt, or was done otherwise.
        languages: the loss on each language of the corpus.
        loss_se: standard error of the loss over held-out texts, where the yardstick has one.
        cut_from: what each layer began with, where it was cut out of the teacher.
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
        """Which piece of work it is."""
        return Job("students", self.id)

    @property
    def name(self) -> str:
        """As a user writes it: s3."""
        return f"s{self.id}"

    @property
    def seconds_left(self) -> float | None:
        """Of its training, by the pace so far; None where there is none to tell by."""
        if self.state != "running" or not self.step or not self.steps:
            return None
        return self.seconds / self.step * max(0, self.steps - self.step)

    def to_dict(self) -> dict[str, Any]:
        """The student object of the command line's `--json`."""
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
class Scoring(Work):
    """The scoring of a candidate or a student, and of its teacher, on tasks.

    Attributes:
        run: of its candidate.
        candidate: that is scored; None where a student is.
        student: that is scored; None where a candidate is.
        spec: on which tasks, and how.
    """

    run: int
    candidate: int | None
    student: int | None
    spec: ScoreSpec

    @property
    def job(self) -> Job:
        """Which piece of work it is."""
        return Job("scorings", self.id)

    @property
    def subject(self) -> str:
        """What is scored, as a user writes it: 12 or s3."""
        return str(self.candidate) if self.student is None else f"s{self.student}"


@dataclass(frozen=True)
class Sweep(Work):
    """Measurements of a candidate's latency beyond that of its run: in several runtimes, sizes and lengths.

    They hold for every student that has its architecture.

    Attributes:
        run: of its candidate.
        candidate: that is measured.
        spec: in what ways.
    """

    run: int
    candidate: int
    spec: SweepSpec

    @property
    def job(self) -> Job:
        """Which piece of work it is."""
        return Job("sweeps", self.id)


Asked = RunSpec | DistilSpec | ScoreSpec | SweepSpec


@dataclass(frozen=True)
class Check(Work):
    """The check of what a page asked for, which queues that when it has passed.

    Attributes:
        wanted: the kind of what was asked for.
        sources: the candidates or students that it is of, in order; none for a run.
        spec: of what was asked for.
        made: ids of what was queued.
    """

    wanted: Kind
    sources: tuple[str, ...]
    spec: Asked
    made: tuple[int, ...]

    @property
    def job(self) -> Job:
        """Which piece of work it is."""
        return Job("checks", self.id)


@dataclass(frozen=True)
class Export(Work):
    """An export of a candidate or a student.

    Attributes:
        run: of its candidate.
        candidate: that is exported; None where a student is.
        student: that is exported; None where a candidate is.
        spec: where to, and in which formats.
    """

    run: int
    candidate: int | None
    student: int | None
    spec: ExportSpec

    @property
    def job(self) -> Job:
        """Which piece of work it is."""
        return Job("exports", self.id)

    @property
    def subject(self) -> str:
        """What is exported, as a user writes it: 12 or s3."""
        return str(self.candidate) if self.student is None else f"s{self.student}"


AnyWork = Run | Student | Scoring | Sweep | Check | Export


@dataclass(frozen=True)
class Score:
    """What one fine-tuned model scores by one metric of a task.

    Attributes:
        subject: whose score: the student's (or candidate's), its teacher's, or the control's.
        task: its name.
        metric: its name; of a task with several scored splits "metric, split".
        seed: which of the fine-tuned models, counted from 0.
        value: the score.
        rate: the learning rate; None where nothing was trained.
    """

    subject: Scored
    task: str
    metric: str
    seed: int
    value: float
    rate: float | None = None
