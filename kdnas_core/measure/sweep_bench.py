"""A bench for many points: what ONNX Runtime is given of a teacher and a student is made once for all."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
from transformers import PreTrainedModel

from kdnas_core.distillation.teacher import Teacher
from kdnas_core.measure.bench import LatencyBench
from kdnas_core.measure.latency import TimedRun
from kdnas_core.measure.runtimes import runner, session_of, session_runner
from kdnas_core.spec import LatencySpec, Runtime


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
