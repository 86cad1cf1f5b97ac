"""The latencies of one architecture in several runtimes, batch sizes and lengths, beside its teacher's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.student import new_student
from kdnas_core.distillation.teacher import load_teacher, most_tokens
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.measure.runtimes import check_runtime
from kdnas_core.measure.sweep import Point, points, too_long
from kdnas_core.measure.sweep_bench import PointBench, Sessions
from kdnas_core.spec import RunSpec, SweepSpec


@dataclass(frozen=True)
class SweepListener:
    """Told how a sweep goes on; any may raise to end it early.

    Attributes:
        check: before each run of a timing, often.
        waiting: another process of ours has the device.
        say: what is being done, in words.
        step: points that are taken, of how many.
        measured: one reading.
    """

    check: Callable[[], None]
    waiting: Callable[[], None]
    say: Callable[[str], None]
    step: Callable[[int, int], None]
    measured: Callable[[LatencyReading], None]


def check_sweep(spec: RunSpec, how: SweepSpec) -> str | None:
    """Refuses what could not be measured, before anything is written.

    Returns:
        A sentence about what is left out; None where nothing is.

    Raises:
        BadInput: the teacher cannot be loaded, or a runtime is not to be had here.
    """
    for runtime in how.runtimes:
        check_runtime(runtime)
    return too_long(how, most_tokens(load_teacher(spec.teacher)))


def measure_sweep(
    spec: RunSpec, how: SweepSpec, architecture: Architecture, taken: int, listener: SweepListener
) -> None:
    """Measures a student at every point of a sweep; its weights do not matter, so that none are read.

    Args:
        spec: of the run that the architecture is of.
        how: in what ways.
        architecture: of the student.
        taken: how many of the points are there already.
        listener: told how it goes on, and each reading.

    Raises:
        BadInput: the teacher cannot be loaded, or a runtime is not to be had here.
    """
    listener.say("loading the teacher")
    teacher = load_teacher(spec.teacher)
    student = new_student(teacher, architecture, spec.seed)
    todo = points(how, spec.latency, most_tokens(teacher))
    sessions = Sessions()
    for count, point in enumerate(todo[taken:], taken + 1):
        begun = partial(listener.say, in_words(point))
        bench = PointBench(teacher, point.of(spec.latency), sessions, begun, listener.check)
        listener.measured(bench.student_latency(architecture, student, listener.waiting))
        listener.step(count, len(todo))


def in_words(point: Point) -> str:
    """What is measured at a point, for example "onnxruntime: batch 1, 128 tokens"."""
    return f"{point.runtime}: batch {point.batch_size}, {point.sequence_length} tokens"
