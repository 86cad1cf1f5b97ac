"""A latency bench: measures the students of one teacher beside it, and remembers what it measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel

from kdnas_core import files
from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency.protocol import TimedRun, question, reading, recall_latency, time_in_turns
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import runner, threads
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import LatencySpec


class LatencyBench:
    """One teacher and one protocol.

    What is timed of the teacher is made when it is first timed: never, where all that is asked is remembered.
    """

    def __init__(self, teacher: Teacher, protocol: LatencySpec) -> None:
        self.teacher = teacher
        self.protocol = protocol

    def teacher_latency(self) -> LatencyReading:
        """The teacher's latency on this machine."""
        return self._reading(self.teacher.architecture, student=None)

    def student_latency(
        self,
        architecture: Architecture,
        student: PreTrainedModel,
        waiting: Callable[[], None] = lambda: None,
    ) -> LatencyReading:
        """A student's latency on this machine; its weights do not matter, so that none need be trained.

        Args:
            architecture: of the student.
            student: a model of it.
            waiting: as for `exclusive`.
        """
        return self._reading(architecture, student, waiting)

    def remembered(self, architecture: Architecture) -> LatencyReading | None:
        """What this machine remembers of an architecture; None where it was never measured."""
        return recall_latency(self._question(architecture))

    def _question(self, architecture: Architecture) -> dict[str, Any]:
        return question(self.teacher.name, self.teacher.architecture, architecture, self.protocol)

    def _reading(
        self,
        architecture: Architecture,
        student: PreTrainedModel | None,
        waiting: Callable[[], None] = lambda: None,
    ) -> LatencyReading:
        known = self.remembered(architecture)
        if known is None:
            with exclusive(waiting):  # making the models keeps the cores busy too
                runners = self._runners(student)
                known = self._timed(runners)
                if not known.clean:  # a veto is final: measure again
                    known = self._timed(runners)
            if known.clean:  # an unclean reading is shown as such, and measured again next time
                files.remember("latency", self._question(architecture), known.to_dict())
        return known

    def _runners(self, student: PreTrainedModel | None) -> list[TimedRun]:
        """The teacher, and the student after it where there is one."""
        return [self._teacher_runner, *([] if student is None else [runner(student, self.protocol)])]

    def _timed(self, runners: list[TimedRun]) -> LatencyReading:
        with threads(self.protocol):
            timings = time_in_turns(runners, self.protocol.warmup, self.protocol.runs)
        return reading(timings[-1], timings[0], self.protocol)

    @cached_property
    def _teacher_runner(self) -> TimedRun:
        return runner(self.teacher.model, self.protocol)
