from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency import bench as module
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.protocol import TimedRun, Timing
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, Runtime
from tests.tiny import teacher_of

SMALL = Architecture(1, 16, 32, 2)
PROTOCOL = LatencySpec(budget_speedup=2, sequence_length=16)

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


class Stand:
    """Replaces the runtimes and the clock; records the exports and the timings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clean: bool = True) -> None:
        self.exported: list[int] = []  # layers of each
        self.timed: list[tuple[list[int], int, int]] = []  # layers of those timed together, warm-up, runs
        self.threads: list[int] = []  # that torch had meanwhile
        self.locked = False
        self.clean = clean
        self.milliseconds = 1.0
        monkeypatch.setattr(module, "runner", self._runner)
        monkeypatch.setattr(module, "time_in_turns", self._time)
        monkeypatch.setattr(module, "exclusive", self._lock)

    def _runner(self, model: object, protocol: LatencySpec) -> TimedRun:
        layers = model.config.num_hidden_layers  # type: ignore[attr-defined]
        self.exported.append(layers)
        return lambda: (layers, True)

    def _time(self, runners: Sequence[TimedRun], warmup: int, runs: int) -> list[Timing]:
        assert self.locked
        layers = [int(run()[0]) for run in runners]
        self.timed.append((layers, warmup, runs))
        self.threads.append(torch.get_num_threads())
        return [Timing((count * self.milliseconds,) * runs, 0, self.clean) for count in layers]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.locked = True
        yield
        self.locked = False


def test_a_student_is_timed_beside_its_teacher_under_the_lock(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    result = LatencyBench(teacher, PROTOCOL).student_latency(SMALL, new_student(teacher, SMALL, 0))
    assert stand.timed == [([4, 1], 20, 100)]
    assert (result.p50, result.teacher_p50, result.speedup) == (1.0, 4.0, 4.0)


def test_the_teacher_is_timed_alone_and_its_speedup_is_one(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    result = LatencyBench(teacher, PROTOCOL).teacher_latency()
    assert stand.timed == [([4], 20, 100)]
    assert (result.p50, result.speedup) == (4.0, 1.0)


def test_the_teacher_is_exported_once_however_many_students_there_are(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    bench = LatencyBench(teacher, PROTOCOL)
    bench.teacher_latency()
    for layers in (1, 2, 3):
        architecture = Architecture(layers, 16, 32, 2)
        bench.student_latency(architecture, new_student(teacher, architecture, 0))
    assert stand.exported == [4, 1, 2, 3]


def test_a_released_runner_of_the_teacher_is_made_anew_for_the_next_timing(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, bench = Stand(monkeypatch), LatencyBench(teacher, PROTOCOL)
    bench.release()  # there is none yet
    bench.teacher_latency()
    bench.release()
    bench.student_latency(SMALL, new_student(teacher, SMALL, 0))
    assert stand.exported == [teacher.layers, teacher.layers, SMALL.layers]


def test_what_was_measured_is_remembered_by_a_later_bench(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    student = new_student(teacher, SMALL, 0)
    first = LatencyBench(teacher, PROTOCOL).student_latency(SMALL, student)
    stand.milliseconds = 7.0
    other_budget = PROTOCOL.model_copy(update={"budget_speedup": 5.0})
    assert LatencyBench(teacher, other_budget).student_latency(SMALL, student) == first
    assert len(stand.timed) == 1
    assert len(stand.exported) == 2


def test_another_architecture_or_protocol_is_measured_for_itself(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    student = new_student(teacher, SMALL, 0)
    LatencyBench(teacher, PROTOCOL).student_latency(SMALL, student)
    LatencyBench(teacher, PROTOCOL).student_latency(Architecture(1, 16, 32, 4), student)
    LatencyBench(teacher, PROTOCOL.model_copy(update={"runs": 101})).student_latency(SMALL, student)
    assert [runs for _, _, runs in stand.timed] == [100, 100, 101]


def test_an_unclean_reading_is_shown_as_such_and_measured_again(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch, clean=False)
    bench = LatencyBench(teacher, PROTOCOL)
    student = new_student(teacher, SMALL, 0)
    assert not bench.student_latency(SMALL, student).clean
    stand.clean = True
    assert bench.student_latency(SMALL, student).clean
    bench.student_latency(SMALL, student)
    assert len(stand.timed) == 3  # an unclean one is looked at twice


def test_who_holds_the_device_measures_without_waiting_for_it(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand = Stand(monkeypatch)
    monkeypatch.setattr(module, "exclusive", exclusive)  # the real one
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def waiting() -> None:
        raise AssertionError("it waits for itself")

    stand.locked = True
    with exclusive():
        bench, student = LatencyBench(teacher, PROTOCOL), new_student(teacher, SMALL, 0)
        assert bench.student_latency(SMALL, student, nullcontext).clean
        with pytest.raises(AssertionError, match="waits for itself"):
            bench.student_latency(Architecture(2, 16, 32, 2), student, partial(exclusive, waiting))


def test_what_was_measured_is_remembered_and_nothing_else_is(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    bench = LatencyBench(teacher, PROTOCOL)
    assert bench.remembered(SMALL) is None
    reading = bench.student_latency(SMALL, new_student(teacher, SMALL, 0))
    assert bench.remembered(SMALL) == reading
    in_torch = PROTOCOL.model_copy(update={"runtime": "torch"})
    assert LatencyBench(teacher, in_torch).remembered(SMALL) is None
    assert len(stand.timed) == 1


def test_a_timing_has_the_threads_of_the_protocol_around_it(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    before = torch.get_num_threads()
    LatencyBench(teacher, PROTOCOL.model_copy(update={"threads": 2})).teacher_latency()
    assert stand.threads == [2]
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.parametrize("runtime", USUAL_RUNTIMES)
def test_a_real_student_is_measured_once_in_each_runtime(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: Runtime
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # with a lock of its own
    student = new_student(teacher, SMALL, 0)
    protocol = PROTOCOL.model_copy(update={"runtime": runtime})
    result = LatencyBench(teacher, protocol).student_latency(SMALL, student)
    assert result.runtime == runtime
    assert len(result.samples) >= 100
    assert 0 < result.p50 <= result.p95
    assert result.speedup > 1  # one narrow layer against four
    if result.clean:  # as it is where nothing else runs
        monkeypatch.setattr(module, "runner", None)
        assert LatencyBench(teacher, protocol).student_latency(SMALL, student) == result
