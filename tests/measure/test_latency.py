from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from kdnas_core.architecture import Architecture
from kdnas_core.measure import latency, onnx_model
from kdnas_core.measure.latency import PATIENCE, Timing, onnx_runner, question, reading, time_in_turns
from kdnas_core.spec import LatencySpec

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
    monkeypatch.setattr(latency, "time", clock)
    return clock


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
    monkeypatch.setattr(latency, "device_name", lambda: "another machine")
    elsewhere = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    assert elsewhere != asked
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"{package} 0.0")
    assert question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL) != elsewhere


def test_what_a_latency_depends_on_can_be_written_as_json() -> None:
    asked = question("packaged", TEACHER_SHAPE, ARCHITECTURE, PROTOCOL)
    assert json.loads(json.dumps(asked)) == asked


def test_a_model_is_run_with_the_threads_batch_and_length_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    fed: list[dict[str, NDArray[np.int64]]] = []

    class Session:
        def __init__(self, path: Path, options: Any, providers: list[str]) -> None:
            made.append((options.intra_op_num_threads, options.inter_op_num_threads, providers))

        def run(self, outputs: None, feed: dict[str, NDArray[np.int64]]) -> None:
            fed.append(feed)

    monkeypatch.setattr(onnx_model, "write_onnx", lambda model, path: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    config = BertConfig(
        vocab_size=90, num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8
    )
    run = onnx_runner(BertModel(config), LatencySpec(threads=3, batch_size=2, sequence_length=40))
    run()
    run()
    assert made == [(3, 1, ["CPUExecutionProvider"])]
    for feed in fed:
        assert feed["input_ids"].shape == feed["attention_mask"].shape == (2, 40)
        assert feed["input_ids"].dtype == feed["attention_mask"].dtype == np.int64
        assert feed["attention_mask"].all()
        assert 0 <= feed["input_ids"].min() <= feed["input_ids"].max() < 90
    assert np.array_equal(fed[0]["input_ids"], fed[1]["input_ids"])
