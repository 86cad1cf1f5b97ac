from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.latency import sweep_bench
from kdnas_core.latency.sweep import (
    MODELS_S,
    Point,
    points,
    points_of,
    readings_at,
    seconds_of,
    share_done,
    too_long,
)
from kdnas_core.latency.sweep_bench import PointBench, Sessions
from kdnas_core.models.student import new_student
from kdnas_core.spec import LatencySpec, SweepSpec
from tests.tiny import reading_of, teacher_of

PROTOCOL = LatencySpec(sequence_length=128)
SMALL = SweepSpec(runtimes=["onnxruntime", "torch"], batch_sizes=[1, 4], sequence_lengths=[16, 128, 512])


def shapes(how: SweepSpec, protocol: LatencySpec, longest: int = 512) -> list[tuple[int, int]]:
    """Batch size and length of each point, in order, each once."""
    asked = points(how, protocol, longest)
    return list(dict.fromkeys((point.batch_size, point.sequence_length) for point in asked))


def test_every_runtime_comes_first_where_the_run_measures_and_then_what_is_cheap() -> None:
    asked = points(SMALL, PROTOCOL)
    assert asked[:2] == [Point("onnxruntime", 1, 128), Point("torch", 1, 128)]
    assert shapes(SMALL, PROTOCOL) == [(1, 128), (1, 16), (1, 512), (4, 128)]
    tokens = [point.tokens for point in asked[2:]]
    assert tokens == sorted(tokens)


def test_no_point_is_measured_twice() -> None:
    for protocol in (PROTOCOL, LatencySpec(batch_size=32, sequence_length=512), LatencySpec(batch_size=3)):
        asked = points(SweepSpec(), protocol)
        assert len(asked) == len(set(asked))
    assert len(points(SweepSpec(), PROTOCOL)) == 3 * 11  # 6 batch sizes, 6 lengths, the run's own in both


def test_a_sweep_of_a_run_with_larger_batches_measures_lengths_at_those() -> None:
    assert shapes(SMALL, LatencySpec(batch_size=8, sequence_length=64)) == [
        (8, 64),
        (1, 64),
        (8, 16),
        (4, 64),
        (8, 128),
        (8, 512),
    ]


def test_without_sizes_and_lengths_only_the_runs_own_are_measured() -> None:
    assert shapes(SweepSpec(batch_sizes=[], sequence_lengths=[]), PROTOCOL) == [(1, 128)]


def test_a_point_has_the_protocol_of_the_run_in_all_else() -> None:
    protocol = LatencySpec(threads=2, runs=300, budget_ms=5)
    changed = Point("torch", 4, 16).of(protocol)
    assert changed == LatencySpec(
        threads=2, runs=300, budget_ms=5, runtime="torch", batch_size=4, sequence_length=16
    )
    assert protocol.runtime == "onnxruntime"


def test_lengths_that_the_teacher_does_not_read_are_left_out_and_named() -> None:
    assert (1, 512) not in shapes(SMALL, PROTOCOL, longest=256)
    assert too_long(SMALL, 256) == "The teacher reads fewer than 512 tokens, so 512 are left out."
    assert too_long(SMALL, 512) is None


def test_the_points_of_a_sweep_are_told_by_their_count() -> None:
    for longest in (512, 511, 128, 127, 16):
        asked = points(SMALL, PROTOCOL, longest)
        assert points_of(SMALL, PROTOCOL, len(asked)) == asked
    assert points_of(SMALL, PROTOCOL, 0) == points(SMALL, PROTOCOL)


def test_readings_are_found_at_their_points() -> None:
    reading = reading_of(3.0)  # onnxruntime, batch 1, 16 tokens
    assert readings_at([reading], points(SMALL, PROTOCOL)) == [reading]
    assert readings_at([reading], [Point("torch", 1, 16), Point("onnxruntime", 2, 16)]) == []


def test_the_time_of_a_sweep_grows_with_tokens_and_runs() -> None:
    one = [Point("onnxruntime", 1, 128)]
    assert seconds_of(one, 10.0, PROTOCOL) == pytest.approx(MODELS_S + 120 * 0.010)
    four = [Point("onnxruntime", 4, 128)]
    assert seconds_of(four, 10.0, PROTOCOL) == pytest.approx(MODELS_S + 4 * 120 * 0.010)
    often = PROTOCOL.model_copy(update={"runs": 220})
    assert seconds_of(one, 10.0, often) == pytest.approx(MODELS_S + 240 * 0.010)
    in_torch = PROTOCOL.model_copy(update={"runtime": "torch"})
    assert seconds_of([Point("torch", 1, 128)], 17.0, in_torch) == pytest.approx(MODELS_S + 120 * 0.017)


def test_the_share_that_is_done_counts_work_not_points() -> None:
    asked = [Point("onnxruntime", 1, 100), Point("onnxruntime", 9, 100)]
    assert [share_done(asked, taken) for taken in (0, 1, 2)] == pytest.approx([0.0, 0.1, 1.0])


# --- the bench of a point ---------------------------------------------------------------------------------


class Session:
    """Replaces an ONNX Runtime session; records the shape of its input."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, names: None, feed: dict[str, Any]) -> None:
        self.shapes.append(feed["input_ids"].shape)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PreTrainedModel, str, Session]]:
    """The sessions that were made, with their models and runtimes."""
    made: list[tuple[PreTrainedModel, str, Session]] = []

    def session_of(model: PreTrainedModel, protocol: LatencySpec) -> Session:
        made.append((model, protocol.runtime, Session()))
        return made[-1][2]

    monkeypatch.setattr(sweep_bench, "session_of", session_of)
    return made


@pytest.mark.usefixtures("fresh_cache")
def test_a_model_is_given_to_onnx_runtime_once_for_all_points(
    tiny_teacher: Path, made: list[tuple[PreTrainedModel, str, Session]]
) -> None:
    teacher, shape = teacher_of(tiny_teacher), Architecture(1, 16, 32, 2)
    student, sessions = new_student(teacher, shape, 0), Sessions()
    for point in (Point("onnxruntime", 1, 16), Point("onnxruntime", 2, 8), Point("onnxruntime-int8", 1, 16)):
        bench = PointBench(teacher, point.of(LatencySpec()), sessions, lambda: None, lambda: None)
        reading = bench.student_latency(shape, student)
        assert (reading.runtime, reading.batch_size) == (point.runtime, point.batch_size)
    assert [(model is student, runtime) for model, runtime, _ in made] == [
        (False, "onnxruntime"),
        (True, "onnxruntime"),
        (False, "onnxruntime-int8"),
        (True, "onnxruntime-int8"),
    ]
    assert [set(session.shapes) for *_, session in made] == [
        {(1, 16), (2, 8)},
        {(1, 16), (2, 8)},
        {(1, 16)},
        {(1, 16)},
    ]


@pytest.mark.usefixtures("fresh_cache", "made")
def test_a_measurement_ends_within_a_run_when_it_is_told_to(tiny_teacher: Path) -> None:
    teacher, shape, runs = teacher_of(tiny_teacher), Architecture(1, 16, 32, 2), 0

    def check() -> None:
        nonlocal runs
        runs += 1
        if runs == 7:
            raise RuntimeError("enough")

    bench = PointBench(teacher, LatencySpec(sequence_length=16), Sessions(), lambda: None, check)
    with pytest.raises(RuntimeError, match="enough"):
        bench.student_latency(shape, new_student(teacher, shape, 0))
    assert runs == 7
    bench = PointBench(teacher, LatencySpec(sequence_length=16), Sessions(), lambda: None, lambda: None)
    assert bench.student_latency(shape, new_student(teacher, shape, 0)).samples, "the device was not let go"
