"""Estimates the time of a search before it starts, from earlier runs or by a rule of thumb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.read import live
from kdnas_core.hardware import device_name
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.spec import SUPERNET_BATCH, SUPERNET_SHAPES, SUPERNET_STEPS, RunSpec

LATENCY_S = 5.0  # to export a candidate and time it with its teacher
SET_UP_S = 3.0  # of a mini-KD, without its steps: the cut, the projections, the evaluations, the weights
PRUNED_STEPS = 0.5  # of all steps, where candidates are stopped at rungs; 35 to 61% were saved
TASK_TEXTS = 8_000  # read to score a candidate on the proxy of a task
_FLOPS_PER_S = 150e9  # of two cores in training, if there are no earlier runs
_RUNS_REMEMBERED = 10


@dataclass(frozen=True)
class Estimate:
    """A rough estimate of a search's time.

    Attributes:
        seconds: for the whole search.
        candidates: number of candidates to judge.
        distilled: number of them expected within the budget, and so distilled.
        measured: whether the pace was measured on this device, or is a rule of thumb.
    """

    seconds: float
    candidates: int
    distilled: int
    measured: bool


def estimate(spec: RunSpec, outlook: Forecast, pace: float | None) -> Estimate:
    """Estimates the time of a search over a space, at a pace from `pace_here`, else by a rule of thumb.

    Candidates that the search would skip as far over the budget take no time.
    """
    under = outlook.within
    judged = min(spec.search.episodes * spec.search.candidates, outlook.total)
    distilled = round(judged * len(under) / len(outlook.shapes))
    timed = judged - round(judged * outlook.share_skipped)
    mean_work = sum(_work(shape, spec) for shape in under) / max(1, len(under))
    mean_work *= PRUNED_STEPS if spec.prunes else 1
    flops = pace or _FLOPS_PER_S
    seconds = timed * LATENCY_S + distilled * (SET_UP_S + mean_work / flops)
    if spec.objective.start == "supernet":
        seconds += _supernet_work(spec, outlook.shapes) / flops
    return Estimate(seconds, judged, distilled, pace is not None)


def pace_here(db: Path) -> float | None:
    """Returns this device's FLOPs per second in the newest runs' distillations; None if there are none."""
    work = seconds = 0.0
    for snapshot in live.read_runs(db, _RUNS_REMEMBERED):
        for candidate in _distilled_here(snapshot.candidates):
            work += _work(candidate.architecture, snapshot.run.spec)
            seconds += _seconds_of_steps(candidate)
    return work / seconds if seconds else None


def seconds_of_texts(
    texts: int, run: Run, candidate: Candidate, sequence_length: int
) -> tuple[float, float] | None:
    """Estimates the seconds that a full distillation takes for some texts, at the pace of the mini-KD.

    Returns:
        With the teacher's forward pass, and without it, since its outputs are kept. None if the candidate's
        mini-KD, which reads kept outputs, did not run on this device.
    """
    if run.teacher is None or not _distilled_here([candidate]):
        return None
    pace = _work(candidate.architecture, run.spec) / _seconds_of_steps(candidate)
    student = 3.0 * candidate.architecture.flops(sequence_length)
    teacher = run.teacher.architecture.flops(sequence_length)
    return texts * (student + teacher) / pace, texts * student / pace


def _seconds_of_steps(candidate: Candidate) -> float:
    return max(0.1, candidate.seconds - LATENCY_S - SET_UP_S)


def _distilled_here(candidates: Sequence[Candidate]) -> list[Candidate]:
    # no step: its result was remembered; what a static student does is no product that FLOPs count
    rows = [row for row in progress.distilled(candidates) if row.step and not row.architecture.is_static]
    return [row for row in rows if row.seconds and row.latency and row.latency.device == device_name()]


def _supernet_work(spec: RunSpec, shapes: Sequence[Architecture]) -> float:
    mean = fmean(shape.flops(spec.proxy.sequence_length) for shape in shapes)
    return 3.0 * mean * SUPERNET_STEPS * SUPERNET_SHAPES * SUPERNET_BATCH


def _work(shape: Architecture, spec: RunSpec) -> float:
    # a forward pass, and a backward pass of twice its cost
    texts = spec.proxy.steps * spec.proxy.accumulation * spec.proxy.batch_size
    return 3.0 * shape.flops(spec.proxy.sequence_length) * (texts + TASK_TEXTS * len(spec.tasks))
