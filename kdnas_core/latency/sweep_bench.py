"""A bench for many points: what ONNX Runtime is given of a teacher and a student is made once for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import onnxruntime
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.protocol import TimedRun
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import check_runtime, runner, session_of, session_runner
from kdnas_core.latency.sweep import Point, points, too_long
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher, most_tokens
from kdnas_core.spec import LatencySpec, RunSpec, Runtime, SweepSpec


class Sessions:
    """Sessions of ONNX Runtime by model and runtime; one session serves any batch size and length."""

    def __init__(self) -> None:
        self._made: dict[tuple[PreTrainedModel, Runtime], onnxruntime.InferenceSession] = {}

    def runner(self, model: PreTrainedModel, protocol: LatencySpec) -> TimedRun:
        """As `runtimes.runner`; the models are kept, those of all points are the same."""
        if not protocol.runtime.startswith("onnxruntime"):
            return runner(model, protocol)
        key = model, protocol.runtime
        if key not in self._made:
            self._made[key] = session_of(model, protocol)
        return session_runner(self._made[key], model, protocol)


class PointBench(LatencyBench):
    """One point of a sweep.

    Args:
        teacher: whose student is measured.
        protocol: of the point.
        sessions: of all points.
        begun: called when the device is ours and nothing of this point is remembered.
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
