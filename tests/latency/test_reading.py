from __future__ import annotations

import dataclasses
import json
import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas_core.hardware import device_name
from kdnas_core.latency.reading import LatencyReading
from tests.tiny import reading_of

milliseconds = st.floats(1e-3, 1e5)
readings = st.builds(
    LatencyReading,
    p50=milliseconds,
    p95=milliseconds,
    samples=st.lists(milliseconds, max_size=5).map(tuple),
    teacher_p50=milliseconds,
    runtime=st.just("onnxruntime"),
    dtype=st.just("float32"),
    threads=st.integers(1, 64),
    batch_size=st.integers(1, 64),
    sequence_length=st.integers(8, 512),
    device=st.text(),
    repeated=st.integers(0, 300),
    clean=st.booleans(),
)


@given(readings)
def test_a_reading_is_had_back_from_json(reading: LatencyReading) -> None:
    assert LatencyReading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading


def test_the_speedup_is_against_the_teacher_of_the_same_session() -> None:
    assert reading_of(2.5, teacher_milliseconds=10).speedup == 4


def test_a_reading_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading_of(2.5).p50 = 1.0  # type: ignore[misc]


def test_the_device_is_named_by_machine_and_cores_always_alike() -> None:
    assert device_name().startswith(platform.node())
    assert "cores" in device_name()
    assert device_name() == device_name()
