"""How long a search will take, before it is started: at a pace remembered, or by a rule of thumb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.read import live
from kdnas_core.hardware import device_name
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.spec import RunSpec

LATENCY_S = 5.0  # to export a candidate and time it beside its teacher
SET_UP_S = 3.0  # of a mini-KD beside its steps: the cut, the projections, the evaluations, the weights
TASK_TEXTS = 8_000  # read for a candidate's score on the proxy of a task
_FLOPS_PER_S = 150e9  # of two cores in training, where nothing was measured yet
_RUNS_REMEMBERED = 10


@dataclass(frozen=True)
class Estimate:
    """A rough time for a search.

    Attributes:
        seconds: for all of it.
        candidates: how many would be judged.
        distilled: how many of them are expected under the budget, and so distilled.
        measured: whether the pace was seen on this device, or is a rule of thumb.
    """

    seconds: float
    candidates: int
    distilled: int
    measured: bool


def estimate(spec: RunSpec, outlook: Forecast, pace: float | None) -> Estimate:
    """The time of a search over a space, at a pace from `pace_here`, else at the rule of thumb.

    What is far over the budget by the latency model costs nothing: it is skipped, not measured.
    """
    under = outlook.within
    judged = min(spec.search.episodes * spec.search.candidates, outlook.total)
    distilled = round(judged * len(under) / len(outlook.shapes))
    timed = judged - round(judged * outlook.share_skipped)
    mean_work = sum(_work(shape, spec) for shape in under) / max(1, len(under))
    seconds = timed * LATENCY_S + distilled * (SET_UP_S + mean_work / (pace or _FLOPS_PER_S))
    return Estimate(seconds, judged, distilled, pace is not None)


def pace_here(db: Path) -> float | None:
    """FLOPs a second at which this device distilled the newest runs' candidates; None without any."""
    work = seconds = 0.0
    for snapshot in live.read_runs(db, _RUNS_REMEMBERED):
        for candidate in _distilled_here(snapshot.candidates):
            work += _work(candidate.architecture, snapshot.run.spec)
            seconds += _seconds_of_steps(candidate)
    return work / seconds if seconds else None


def seconds_of_texts(texts: int, run: Run, candidate: Candidate, sequence_length: int) -> float | None:
    """How long a full distillation takes for so many texts, at the pace of the candidate's own mini-KD.

    None where that was not here, or not at all. The teacher reads each text once too: in a mini-KD what it
    says is read from the disk.
    """
    if run.teacher is None or not _distilled_here([candidate]):
        return None
    pace = _work(candidate.architecture, run.spec) / _seconds_of_steps(candidate)
    student = 3.0 * candidate.architecture.flops(sequence_length)
    return texts * (student + run.teacher.architecture.flops(sequence_length)) / pace


def _seconds_of_steps(candidate: Candidate) -> float:
    return max(0.1, candidate.seconds - LATENCY_S - SET_UP_S)


def _distilled_here(candidates: Sequence[Candidate]) -> list[Candidate]:
    rows = progress.distilled(candidates)
    return [row for row in rows if row.seconds and row.latency and row.latency.device == device_name()]


def _work(shape: Architecture, spec: RunSpec) -> float:
    # a pass is one forward and one, of twice the cost, backward
    texts = spec.proxy.steps * spec.proxy.accumulation * spec.proxy.batch_size
    return 3.0 * shape.flops(spec.proxy.sequence_length) * (texts + TASK_TEXTS * len(spec.tasks))
