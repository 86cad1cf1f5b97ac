from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.hardware import device_name
from kdnas_core.latency import protocol as latency_protocol
from kdnas_core.latency.protocol import PATIENCE, Timing, device_of, on_processor, question, reading
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, Runtime

PROTOCOL = LatencySpec(budget_ms=5)
ARCHITECTURE = Architecture(2, 32, 64, 4)


class Clock:
    """Stands for `time`; only the runs of models move it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.cpu

    def pass_by(self, seconds: float, share_of_core: float = 1.0) -> None:
        self.wall += seconds
        self.cpu += seconds * share_of_core


class Model:
    """A model whose run k takes `seconds(k)` and has `share(k)` of its core; runs are counted from 1."""

    def __init__(
        self,
        clock: Clock,
        name: str,
        log: list[str],
        seconds: Callable[[int], float] = lambda run: 0.01,
        share: Callable[[int], float] = lambda run: 1.0,
    ) -> None:
        self.clock, self.name, self.log, self.seconds, self.share = clock, name, log, seconds, share
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        self.log.append(self.name)
        self.clock.pass_by(self.seconds(self.runs), self.share(self.runs))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency_protocol, "time", clock)
    return clock


def time_in_turns(models: Sequence[Callable[[], object]], warmup: int, runs: int) -> list[Timing]:
    """Models on the processor, timed in turns."""
    return latency_protocol.time_in_turns([on_processor(model) for model in models], warmup, runs)


def test_models_take_strict_turns_run_by_run(clock: Clock) -> None:
    log: list[str] = []
    time_in_turns([Model(clock, "teacher", log), Model(clock, "student", log)], warmup=3, runs=5)
    assert log == ["teacher", "student"] * (3 + 5)


def test_models_take_strict_turns_even_where_runs_of_one_are_repeated(clock: Clock) -> None:
    log: list[str] = []
    shared = Model(clock, "student", log, share=lambda run: 0.5 if run % 2 else 1.0)
    time_in_turns([Model(clock, "teacher", log), shared], warmup=2, runs=5)
    assert log == ["teacher", "student"] * (len(log) // 2)


def test_warm_up_runs_are_not_counted(clock: Clock) -> None:
    slow_at_first = Model(clock, "student", [], seconds=lambda run: 9.0 if run <= 4 else 0.001 * run)
    (timing,) = time_in_turns([slow_at_first], warmup=4, runs=3)
    assert timing.samples == pytest.approx((5, 6, 7))
    assert (timing.repeated, timing.clean) == (0, True)


def test_every_model_has_its_own_milliseconds(clock: Clock) -> None:
    models = [
        Model(clock, "teacher", [], seconds=lambda run: 0.02),
        Model(clock, "student", [], seconds=lambda run: 0.005),
    ]
    teacher, student = time_in_turns(models, warmup=1, runs=4)
    assert teacher.samples == pytest.approx((20,) * 4)
    assert student.samples == pytest.approx((5,) * 4)


def test_a_run_that_shared_its_core_is_thrown_away_and_repeated(clock: Clock) -> None:
    teacher = Model(clock, "teacher", [])
    student = Model(
        clock,
        "student",
        [],
        seconds=lambda run: 0.05 if run == 3 else 0.01,
        share=lambda run: 0.2 if run == 3 else 1.0,
    )
    timings = time_in_turns([teacher, student], warmup=1, runs=5)
    assert timings[1].samples == pytest.approx((10,) * 5)
    assert timings[1] == Timing(timings[1].samples, repeated=1, clean=True)
    assert timings[0].repeated == 0
    assert len(timings[0].samples) == 5
    assert student.runs == teacher.runs == 1 + 6


@pytest.mark.parametrize(("share", "clean"), [(1 / 1.14, True), (1 / 1.16, False)])
def test_a_run_is_unclean_where_its_wall_time_exceeds_its_cpu_time_by_15_percent(
    clock: Clock, share: float, clean: bool
) -> None:
    (timing,) = time_in_turns([Model(clock, "student", [], share=lambda run: share)], warmup=0, runs=3)
    assert timing.clean is clean


def test_where_the_machine_is_never_quiet_it_gives_up_and_says_so(clock: Clock) -> None:
    student = Model(clock, "student", [], share=lambda run: 0.5)
    timings = time_in_turns([Model(clock, "teacher", []), student], warmup=2, runs=5)
    assert student.runs == 2 + PATIENCE * 5
    assert timings[1].clean is False
    assert timings[1].samples == pytest.approx((10,) * PATIENCE * 5)
    assert timings[0].clean is True


def test_a_run_that_sleeps_is_not_clean_by_the_real_clock() -> None:
    (timing,) = time_in_turns([lambda: time.sleep(0.002)], warmup=1, runs=3)
    assert timing.clean is False
    assert len(timing.samples) == PATIENCE * 3
    assert all(sample >= 2 for sample in timing.samples)


def test_a_reading_has_the_percentiles_of_the_counted_runs() -> None:
    student = Timing(tuple(float(sample) for sample in range(100, 0, -1)), repeated=4, clean=True)
    teacher = Timing((10.0, 30.0, 20.0), repeated=0, clean=True)
    result = reading(student, teacher, PROTOCOL)
    assert [result.p50, result.p95] == pytest.approx([50.5, 95.05])
    assert result.teacher_p50 == 20
    assert result.speedup == pytest.approx(20 / 50.5)
    assert result.samples == student.samples
    assert result.repeated == 4


def test_a_reading_says_under_what_protocol_it_was_taken() -> None:
    protocol = LatencySpec(budget_ms=5, threads=3, batch_size=2, sequence_length=64)
    timing = Timing((1.0,), 0, clean=True)
    result = reading(timing, timing, protocol)
    assert (result.runtime, result.dtype, result.threads) == ("onnxruntime", "float32", 3)
    assert (result.batch_size, result.sequence_length) == (2, 64)
    assert result.device


@pytest.mark.parametrize("student", [True, False])
@pytest.mark.parametrize("teacher", [True, False])
def test_a_reading_is_clean_where_both_models_were(student: bool, teacher: bool) -> None:
    result = reading(Timing((1.0,), 0, student), Timing((1.0,), 0, teacher), PROTOCOL)
    assert result.clean is (student and teacher)


TEACHER_SHAPE = Architecture(12, 64, 128, 4)


@pytest.mark.parametrize(
    ("runtime", "dtype"),
    [
        ("onnxruntime", "float32"),
        ("onnxruntime-int8", "int8"),
        ("torch", "float32"),
        ("torch-cuda", "float32"),
    ],
)
def test_a_reading_says_in_what_runtime_and_numbers_it_was_taken(runtime: Runtime, dtype: str) -> None:
    timing = Timing((1.0,), 0, clean=True)
    result = reading(timing, timing, LatencySpec(runtime=runtime))
    assert (result.runtime, result.dtype) == (runtime, dtype)


def test_the_device_of_cuda_is_the_machine_with_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of("torch-cuda") == f"{device_name()}, no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    assert device_of("torch-cuda") == f"{device_name()}, A100"
    assert {device_of(runtime) for runtime in USUAL_RUNTIMES} == {device_name()}
    timing = Timing((1.0,), 0, clean=True)
    assert reading(timing, timing, LatencySpec(runtime="torch-cuda")).device.endswith(", A100")


def test_the_clean_rule_of_a_runner_is_its_own() -> None:
    runs = iter([(1.0, True), (9.0, False), (2.0, True), (3.0, True)])
    (timing,) = latency_protocol.time_in_turns([lambda: next(runs)], warmup=0, runs=3)
    assert timing == Timing((1.0, 2.0, 3.0), repeated=1, clean=True)


def test_the_budget_is_not_part_of_what_a_latency_depends_on() -> None:
    asked = [
        question("packaged", TEACHER_SHAPE, ARCHITECTURE, budget)
        for budget in (PROTOCOL, LatencySpec(budget_ms=9), LatencySpec(budget_speedup=3))
    ]
    assert asked[0] == asked[1] == asked[2]


CHANGES = {"threads": 2, "batch_size": 4, "sequence_length": 64, "warmup": 30, "runs": 200}


def test_every_other_field_of_the_protocol_is_looked_at_below() -> None:
    assert set(LatencySpec.model_fields) == {*CHANGES, "budget_ms", "budget_speedup", "runtime"}


@pytest.mark.parametrize(("field", "value"), CHANGES.items())
def test_a_latency_depends_on_the_rest_of_the_protocol(field: str, value: int) -> None:
    other = PROTOCOL.model_copy(update={field: value})
    assert question("packaged", TEACHER_SHAPE, ARCHITECTURE, other) != question(
        "packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL
    )


@pytest.mark.parametrize(
    "other",
    [
        Architecture(3, 32, 64, 4),
        Architecture(2, 64, 64, 4),
        Architecture(2, 32, 32, 4),
        Architecture(2, 32, 64, 2),
        Architecture(2, 32, 64, 4, "relu"),
    ],
)
def test_a_latency_depends_on_every_knob_of_the_architecture(other: Architecture) -> None:
    assert question("packaged", TEACHER_SHAPE, other, PROTOCOL) != question(
        "packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL
    )


def test_a_latency_depends_on_the_teacher_the_machine_and_the_runtimes_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    assert question("other", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL) != asked
    assert question("packaged", ARCHITECTURE, ARCHITECTURE, PROTOCOL) != asked
    monkeypatch.setattr(latency_protocol, "device_name", lambda: "another machine")
    elsewhere = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    assert elsewhere != asked
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"{package} 0.0")
    assert question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL) != elsewhere


def test_a_latency_depends_on_the_runtime_and_on_the_version_of_its_own_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"{package} 1.0")
    asked = {
        runtime: question("packaged", TEACHER_SHAPE, ARCHITECTURE, LatencySpec(runtime=runtime))
        for runtime in get_args(Runtime)
    }
    assert len({json.dumps(each) for each in asked.values()}) == 4
    versions = {runtime: each["version"] for runtime, each in asked.items()}
    assert versions == {
        "onnxruntime": "onnxruntime 1.0",
        "onnxruntime-int8": "onnxruntime 1.0",
        "torch": "torch 1.0",
        "torch-cuda": "torch 1.0",
    }


def test_a_latency_of_the_graph_without_token_types_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    without = {name: value for name, value in asked.items() if name != "graph"}
    assert without != asked
    monkeypatch.setattr(latency_protocol, "GRAPH", 99)
    assert question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL) != asked


def test_what_a_latency_depends_on_can_be_written_as_json() -> None:
    asked = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    assert json.loads(json.dumps(asked)) == asked
