from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from kdnas_core import files
from kdnas_core.architecture import PRESETS, Architecture, static_student
from kdnas_core.hardware import device_name
from kdnas_core.latency import model as module
from kdnas_core.latency.model import (
    FEWEST,
    FEWEST_ROUGH,
    MeasuredLatency,
    fitted,
    fitted_roughly,
    known_here,
    model_here,
    without_drift,
    work,
)
from kdnas_core.latency.protocol import question
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec, SpaceSpec
from tests.tiny import reading_of

TEACHER = Architecture(6, 384, 1536, 12)
SPACE = SearchSpace.from_spec(SpaceSpec(), TEACHER)
PROTOCOL = LatencySpec(budget_ms=5)


def made_up_ms(architecture: Architecture, batch_size: int = 1, sequence_length: int = 128) -> float:
    """Returns the latency on a made-up machine: a time for each operation and a time for each layer."""
    tokens = batch_size * sequence_length
    width, between = architecture.hidden_size, architecture.intermediate_size
    products = tokens * architecture.layers * (4 * width * width * 1e-8 + 2 * width * between * 0.7e-8)
    attention = tokens * sequence_length * architecture.layers * (2 * width * 3e-8)
    softmax = tokens * sequence_length * architecture.layers * architecture.attention_heads * 1e-6
    activated = (
        tokens
        * architecture.layers
        * between
        * {"gelu": 2e-6, "relu": 0.1e-6}.get(architecture.hidden_act, 1e-6)
    )
    return 0.05 + 0.1 * architecture.layers + products + attention + softmax + activated


def known_of(count: int, noise: float = 0.0, seed: int = 0) -> list[MeasuredLatency]:
    rng = np.random.default_rng(seed)
    shapes = SPACE.sample(random.Random(seed), count, ())
    return [
        MeasuredLatency(shape, 1, 128, made_up_ms(shape) * float(np.exp(noise * rng.normal())))
        for shape in shapes
    ]


def test_a_machine_whose_time_follows_the_work_is_estimated_exactly_in_its_whole_space() -> None:
    model = fitted(known_of(24))
    assert model is not None
    assert model.readings == 24
    assert model.p90_error < 1e-3
    for shape in SPACE.sample(random.Random(5), 300, ()):
        assert model.estimate(shape, 1, 128) == pytest.approx(made_up_ms(shape), rel=0.01)


def test_a_rough_model_comes_near_from_few_architectures_where_none_was_fitted() -> None:
    teacher = MeasuredLatency(TEACHER, 1, 128, made_up_ms(TEACHER))
    known = [*known_of(FEWEST_ROUGH - 1), teacher]
    assert fitted(known) is None and fitted_roughly(known[1:]) is None
    rough = fitted_roughly(known)
    assert rough is not None
    shapes = SPACE.sample(random.Random(5), 300, ())
    errors = [abs(rough.estimate(shape, 1, 128) / made_up_ms(shape) - 1) for shape in shapes]
    by_flops = [
        abs(teacher.ms * shape.flops(128) / TEACHER.flops(128) / made_up_ms(shape) - 1) for shape in shapes
    ]
    assert float(np.median(errors)) < 0.5 * float(np.median(by_flops))


def test_other_batches_lengths_and_activations_are_estimated_where_some_were_measured() -> None:
    shapes = [
        dataclasses.replace(shape, hidden_act=act)
        for shape in SPACE.sample(random.Random(0), 12, ())
        for act in ("gelu", "relu")
    ]
    known = [
        MeasuredLatency(shape, batch, length, made_up_ms(shape, batch, length))
        for shape in shapes
        for batch, length in ((1, 16), (1, 128), (1, 512), (8, 128))
    ]
    model = fitted(known)
    assert model is not None
    for shape in SPACE.sample(random.Random(1), 8, shapes):
        for act in ("gelu", "relu"):
            other = dataclasses.replace(shape, hidden_act=act)
            assert model.estimate(other, 4, 256) == pytest.approx(made_up_ms(other, 4, 256), rel=0.02)


def test_noise_of_three_percent_stays_an_error_of_a_few() -> None:
    model = fitted(known_of(32, noise=0.03))
    assert model is not None
    assert 0.005 < model.median_error < 0.06
    assert model.median_error < model.p90_error < 0.12
    errors = [
        abs(model.estimate(shape, 1, 128) / made_up_ms(shape) - 1)
        for shape in SPACE.sample(random.Random(6), 300, ())
    ]
    assert np.percentile(errors, 90) < 0.06


def test_the_coefficients_are_those_of_the_least_squared_relative_error() -> None:
    known = known_of(20, noise=0.1)
    model = fitted(known)
    assert model is not None
    rows = np.array([work(at.architecture, 1, 128) / at.ms for at in known])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1

    def loss(coefficients: np.ndarray) -> float:
        return float(((rows / scale @ coefficients - 1) ** 2).sum())

    ours = np.array(model.coefficients) * scale
    assert (ours >= 0).all()
    bounds = [(0, None)] * len(ours)
    found = minimize(loss, np.full(len(ours), 0.1), bounds=bounds, options={"maxiter": 5_000, "ftol": 1e-14})
    assert loss(ours) <= found.fun + 1e-9
    assert loss(ours) == pytest.approx(found.fun, rel=1e-3)


def test_the_error_is_that_of_architectures_left_out_with_all_their_readings() -> None:
    known = known_of(10, noise=0.2)
    twice = [*known, *(dataclasses.replace(at, batch_size=2, ms=1.9 * at.ms) for at in known)]
    errors = []
    for at in known:
        others = [other for other in twice if other.architecture != at.architecture]
        model = fitted(others)
        assert model is not None
        own = [other for other in twice if other.architecture == at.architecture]
        errors += [
            abs(model.estimate(other.architecture, other.batch_size, 128) / other.ms - 1) for other in own
        ]
    model = fitted(twice)
    assert model is not None
    assert model.readings == 20
    assert [model.median_error, model.p90_error] == pytest.approx(np.percentile(errors, [50, 90]))


def test_too_few_architectures_make_no_model_however_many_readings_there_are() -> None:
    known = known_of(FEWEST - 1)
    often = [
        dataclasses.replace(at, batch_size=size, ms=size * at.ms) for at in known for size in (1, 2, 4, 8)
    ]
    assert fitted([]) is None
    assert fitted(often) is None
    assert fitted(known_of(FEWEST)) is not None


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_published_student_can_be_measured_and_estimated(preset: str) -> None:
    shape = PRESETS[preset]
    model = fitted([*known_of(12), MeasuredLatency(shape, 1, 128, 50.0)])
    assert model is not None
    assert np.isfinite(model.estimate(shape, 1, 128))
    assert model.estimate(shape, 1, 512) > model.estimate(shape, 1, 128) > 0


@pytest.mark.parametrize("shape", [*PRESETS.values(), Architecture(2, 96, 384, 3, "gelu", 32)])
def test_the_multiply_adds_are_those_of_the_architecture(shape: Architecture) -> None:
    kinds = work(shape, 3, 64)
    assert kinds[2:5].sum() == 3 * shape.flops(64) / 2
    assert (kinds >= 0).all()


def test_a_plain_students_work_is_split_as_its_layers_are() -> None:
    kinds = work(Architecture(2, 96, 384, 3, "relu"), 4, 16)
    tokens = 4 * 16
    assert kinds.tolist() == [
        1,
        2,
        tokens * 2 * 4 * 96 * 96,
        tokens * 2 * 2 * 96 * 384,
        tokens * 2 * 2 * 16 * 96,
        tokens * 2 * 3 * 16,
        tokens * 2 * 96,
        tokens * 96,
        0,
        tokens * 2 * 384,
        0,
    ]


# What this machine remembers


def test_the_drift_of_a_session_is_taken_out_by_its_teacher() -> None:
    usual, slow, quick = reading_of(4.0, 10.0), reading_of(6.0, 15.0), reading_of(3.2, 8.0)
    shapes = [Architecture(layers, 96, 384, 3) for layers in (1, 2, 3)]
    known = without_drift(zip(["packaged"] * 3, shapes, (usual, slow, quick), strict=True))
    assert [at.ms for at in known] == pytest.approx([4.0, 4.0, 4.0])
    assert [at.architecture for at in known] == shapes


def test_each_teacher_batch_and_length_has_a_usual_state_of_its_own() -> None:
    shape = Architecture(1, 96, 384, 3)
    long = dataclasses.replace(reading_of(40.0, 100.0), sequence_length=512)
    known = without_drift(
        [("a", shape, reading_of(4.0, 10.0)), ("b", shape, reading_of(4.0, 20.0)), ("a", shape, long)]
    )
    assert [at.ms for at in known] == [4.0, 4.0, 40.0]
    assert [at.sequence_length for at in known] == [16, 16, 512]


def remember(shape: Architecture, protocol: LatencySpec = PROTOCOL, **fields: object) -> None:
    milliseconds = made_up_ms(shape, protocol.batch_size, protocol.sequence_length)
    reading = dataclasses.replace(
        reading_of(milliseconds, 20.0),
        batch_size=protocol.batch_size,
        sequence_length=protocol.sequence_length,
        device=device_name(),
    )
    asked = question("packaged", TEACHER, shape, protocol)
    files.remember("latency", asked, {**reading.to_dict(), **fields})


def with_fields(protocol: LatencySpec, **fields: object) -> LatencySpec:
    return protocol.model_copy(update=fields)


@pytest.mark.usefixtures("fresh_cache")
def test_known_here_is_what_was_measured_in_this_runtime_with_these_threads() -> None:
    first, second, other = SPACE.sample(random.Random(0), 3, ())
    remember(first)
    remember(second, with_fields(PROTOCOL, budget_ms=9.0, batch_size=4, sequence_length=64, runs=200))
    for fields in ({"runtime": "torch"}, {"threads": 2}):
        remember(other, with_fields(PROTOCOL, **fields))
    known = sorted(known_here(PROTOCOL), key=lambda at: at.batch_size)
    assert [(at.architecture, at.batch_size, at.sequence_length) for at in known] == [
        (first, 1, 128),
        (second, 4, 64),
    ]
    assert [at.ms for at in known] == pytest.approx([made_up_ms(first), made_up_ms(second, 4, 64)])
    assert [at.architecture for at in known_here(with_fields(PROTOCOL, threads=2))] == [other]


@pytest.mark.usefixtures("fresh_cache")
def test_what_a_static_student_took_says_nothing_of_layers_and_is_left_out() -> None:
    (shape,) = SPACE.sample(random.Random(0), 1, ())
    remember(shape)
    asked = question("packaged", TEACHER, static_student(384), PROTOCOL)
    reading = dataclasses.replace(reading_of(0.2, 20.0), device=device_name(), sequence_length=128)
    files.remember("latency", asked, reading.to_dict())
    assert [at.architecture for at in known_here(PROTOCOL)] == [shape]


@pytest.mark.usefixtures("fresh_cache")
def test_what_another_device_or_an_older_graph_took_is_not_known_here() -> None:
    (shape,) = SPACE.sample(random.Random(0), 1, ())
    asked = question("packaged", TEACHER, shape, PROTOCOL)
    older = {name: value for name, value in asked.items() if name != "graph"}
    for other in ({**asked, "device": "another machine"}, {**asked, "version": "0.1"}, older, {}):
        files.remember("latency", other, reading_of(1.0).to_dict())
    assert known_here(PROTOCOL) == []


@pytest.mark.usefixtures("fresh_cache")
def test_an_unclean_reading_is_not_known() -> None:
    (shape,) = SPACE.sample(random.Random(0), 1, ())
    remember(shape, clean=False)
    assert known_here(PROTOCOL) == []


@pytest.mark.usefixtures("fresh_cache")
def test_a_damaged_reading_is_not_known_and_harms_no_other() -> None:
    whole, damaged = SPACE.sample(random.Random(0), 2, ())
    remember(whole)
    asked = question("packaged", TEACHER, damaged, PROTOCOL)
    answer = reading_of(1.0).to_dict()
    files.remember("latency", asked, {})
    files.remember("latency", {**asked, "architecture": {"layers": 2}}, answer)
    files.remember("latency", {name: asked[name] for name in asked if name != "teacher"}, answer)
    files.remember("latency", {**asked, "protocol": None}, answer)
    assert [at.architecture for at in known_here(PROTOCOL)] == [whole]


@pytest.mark.usefixtures("fresh_cache")
def test_the_model_here_is_fitted_anew_only_where_something_new_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *shapes, one_more = SPACE.sample(random.Random(0), 13, ())
    assert model_here(PROTOCOL) is None
    for shape in shapes:
        remember(shape)
    model = model_here(PROTOCOL)
    assert model is not None
    assert model.readings == 12
    assert model_here(PROTOCOL) is model
    assert model_here(with_fields(PROTOCOL, runtime="torch")) is None
    remember(one_more)
    again = model_here(PROTOCOL)
    assert again is not None
    assert again.readings == 13


def test_a_page_can_ask_for_the_model_without_torch() -> None:
    code = (
        "import sys; from kdnas_core.latency.model import model_here; "
        "from kdnas_core.spec import LatencySpec; model_here(LatencySpec()); "
        "print(sorted({'torch', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    )
    root = Path(module.__file__).parents[2]
    child = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
