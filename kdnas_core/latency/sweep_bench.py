"""A bench for the points of a sweep, which share the ONNX Runtime sessions of teacher and student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import onnxruntime
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.protocol import TimedRun
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import check_runtime, runner, session_of, session_runner
from kdnas_core.latency.sweep import Point, points, too_long
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher, most_tokens
from kdnas_core.spec import LatencySpec, RunSpec, Runtime, SweepSpec


class Sessions:
    """ONNX Runtime sessions by model and runtime; a session runs any batch size and length."""

    def __init__(self) -> None:
        self._made: dict[tuple[PreTrainedModel, Runtime], onnxruntime.InferenceSession] = {}

    def runner(self, model: PreTrainedModel, protocol: LatencySpec) -> TimedRun:
        """As `runtimes.runner`, with cached sessions."""
        if not protocol.runtime.startswith("onnxruntime"):
            return runner(model, protocol)
        key = model, protocol.runtime
        if key not in self._made:
            self._made[key] = session_of(model, protocol)
        return session_runner(self._made[key], model, protocol)


class PointBench(LatencyBench):
    """The bench of one point of a sweep.

    Args:
        teacher: the student's teacher.
        protocol: of the point.
        sessions: shared by all points.
        begun: called when the measurement begins, which it does not if the reading is cached.
        check: called before each run, outside its time; may raise to end the measurement.
    """

    def __init__(
        self,
        teacher: Teacher,
        protocol: LatencySpec,
        sessions: Sessions,
        begun: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        super().__init__(teacher, protocol)
        self._sessions, self._begun, self._check = sessions, begun, check

    def _runners(self, student: PreTrainedModel | None) -> list[TimedRun]:
        self._begun()
        models = [self.teacher.model, *([] if student is None else [student])]
        return [self._watched(self._sessions.runner(model, self.protocol)) for model in models]

    def _watched(self, run: TimedRun) -> TimedRun:
        def watched() -> tuple[float, bool]:
            self._check()
            return run()

        return watched


@dataclass(frozen=True)
class SweepListener:
    """Callbacks of a sweep; any may raise to end it early.

    Attributes:
        check: called often, before each run of a timing.
        waiting: called while another process holds the device.
        say: called with a sentence on what is being done.
        step: called with the number of points measured and of all points.
        measured: called with each reading.
    """

    check: Callable[[], None]
    waiting: Callable[[], None]
    say: Callable[[str], None]
    step: Callable[[int, int], None]
    measured: Callable[[LatencyReading], None]


def check_sweep(spec: RunSpec, how: SweepSpec) -> str | None:
    """Checks a sweep before anything is written.

    Returns:
        A sentence on the lengths that are left out; None if there are none.

    Raises:
        BadInput: the teacher cannot be loaded, or this machine lacks a runtime.
    """
    for runtime in how.runtimes:
        check_runtime(runtime)
    return too_long(how, most_tokens(load_teacher(spec.teacher)))


def measure_sweep(
    spec: RunSpec, how: SweepSpec, architecture: Architecture, taken: int, listener: SweepListener
) -> None:
    """Measures a student at every point of a sweep, with random weights, which do not change its latency.

    Args:
        spec: of the student's run.
        how: the sweep.
        architecture: of the student.
        taken: number of points measured before.
        listener: callbacks.

    Raises:
        BadInput: the teacher cannot be loaded, or this machine lacks a runtime.
    """
    listener.say("loading the teacher")
    teacher = load_teacher(spec.teacher)
    student = new_student(teacher, architecture, spec.seed)
    todo = points(how, spec.latency, most_tokens(teacher))
    sessions = Sessions()
    for count, point in enumerate(todo[taken:], taken + 1):
        begun = partial(listener.say, in_words(point))
        bench = PointBench(teacher, point.of(spec.latency), sessions, begun, listener.check)
        listener.measured(bench.student_latency(architecture, student, partial(exclusive, listener.waiting)))
        listener.step(count, len(todo))


def in_words(point: Point) -> str:
    """Describes a point, for example "onnxruntime: batch 1, 128 tokens"."""
    return f"{point.runtime}: batch {point.batch_size}, {point.sequence_length} tokens"
