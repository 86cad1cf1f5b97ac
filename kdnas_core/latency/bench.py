"""A latency bench: measures the students of a teacher in alternation with it, and caches the readings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel

from kdnas_core import files
from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive, return_memory
from kdnas_core.latency.protocol import TimedRun, question, reading, recall_latency, time_in_turns
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import runner, threads
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import LatencySpec


class LatencyBench:
    """The bench of one teacher and one protocol.

    The teacher's runner is made at the first timing, so not at all if every reading is cached.
    """

    def __init__(self, teacher: Teacher, protocol: LatencySpec) -> None:
        self.teacher = teacher
        self.protocol = protocol

    def teacher_latency(self) -> LatencyReading:
        """Returns the teacher's latency on this machine."""
        return self._reading(self.teacher.architecture, student=None)

    def student_latency(
        self,
        architecture: Architecture,
        student: PreTrainedModel,
        alone: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> LatencyReading:
        """Returns a student's latency on this machine; it does not depend on the student's weights.

        Args:
            architecture: of the student.
            student: a model of that architecture.
            alone: returns a context in which nothing else computes; `exclusive` by default.
        """
        return self._reading(architecture, student, alone)

    def remembered(self, architecture: Architecture) -> LatencyReading | None:
        """Returns the cached reading of an architecture; None if there is none."""
        return recall_latency(self._question(architecture))

    def release(self) -> None:
        """Releases the teacher's runner, which the next timing makes anew."""
        self.__dict__.pop("_teacher_runner", None)

    def _question(self, architecture: Architecture) -> dict[str, Any]:
        return question(self.teacher.name, self.teacher.architecture, architecture, self.protocol)

    def _reading(
        self,
        architecture: Architecture,
        student: PreTrainedModel | None,
        alone: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> LatencyReading:
        known = self.remembered(architecture)
        if known is None:
            # also while making the runners, which uses the cores
            with (alone or exclusive)():
                runners = self._runners(student)
                known = self._timed(runners)
                if not known.clean:
                    known = self._timed(runners)
            del runners
            return_memory()  # of the graph and its session
            if known.clean:  # unclean readings are not cached but measured again
                files.remember("latency", self._question(architecture), known.to_dict())
        return known

    def _runners(self, student: PreTrainedModel | None) -> list[TimedRun]:
        """The runners of the teacher and, if there is one, the student."""
        return [self._teacher_runner, *([] if student is None else [runner(student, self.protocol)])]

    def _timed(self, runners: list[TimedRun]) -> LatencyReading:
        with threads(self.protocol):
            timings = time_in_turns(runners, self.protocol.warmup, self.protocol.runs)
        return reading(timings[-1], timings[0], self.protocol)

    @cached_property
    def _teacher_runner(self) -> TimedRun:
        return runner(self.teacher.model, self.protocol)
