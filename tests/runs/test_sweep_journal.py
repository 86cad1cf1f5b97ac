"""Sweeps of latencies as the worker serves them; the measurements are replaced, except in one real sweep."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.latency import sweep_bench as search_sweep
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep import Point, points
from kdnas_core.latency.sweep_bench import SweepListener, in_words
from kdnas_core.runs import student_journals, worker
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Sweep
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import RunSpec, SweepSpec
from tests.filled_store import TEACHER, add_episode, begin_run, judge, reading
from tests.sentences import is_one_sentence
from tests.tiny_runs import no_export, own_machine, tiny_run

HOW = SweepSpec(runtimes=["onnxruntime", "torch"], batch_sizes=[1, 2], sequence_lengths=[16])
SHAPE = Architecture(2, 192, 384, 12)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with one finished run: candidate 1 was judged, 2 is over budget."""
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.02)
    with opened(tmp_path / "runs.db") as store:
        run = begin_run(store)
        for candidate in add_episode(store, run, 1, [SHAPE, TEACHER]):
            judge(store, run, candidate)
        store.end_run(run, "finished")
        yield store


def taken_at(point: Point) -> LatencyReading:
    """Returns a reading at a point, with a latency that identifies the point."""
    return dataclasses.replace(
        reading(point.tokens),
        runtime=point.runtime,
        batch_size=point.batch_size,
        sequence_length=point.sequence_length,
    )


class Measuring:
    """Replaces a sweep's measurements, and runs an action after each."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.taken: list[Point] = []
        self.calls: list[tuple[Any, ...]] = []
        self.after: Callable[[int], None] = lambda count: None
        patch.setattr(student_journals, "measure_sweep", self)

    def __call__(
        self, spec: RunSpec, how: SweepSpec, architecture: Architecture, taken: int, listener: SweepListener
    ) -> None:
        self.calls.append((spec, how, architecture))
        todo = points(how, spec.latency)
        for count, point in enumerate(todo[taken:], taken + 1):
            listener.say(in_words(point))
            listener.check()
            self.taken.append(point)
            listener.measured(taken_at(point))
            self.after(count)
            listener.step(count, len(todo))


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    return Measuring(monkeypatch)


def claimed(store: Store, candidate: int = 1) -> Sweep:
    return store.sweep(store.create_sweep(HOW, candidate, Worker.this_process()))


def claim(store: Store) -> Any:
    return store.claim(Worker.this_process())


def keys(readings: list[LatencyReading]) -> set[tuple[str, int, int]]:
    return {(row.runtime, row.batch_size, row.sequence_length) for row in readings}


def test_a_sweep_keeps_every_reading_and_counts_its_points(store: Store, measuring: Measuring) -> None:
    told: list[tuple[str, int, int]] = []
    sweep = claimed(store)
    assert worker.measure(store, sweep, lambda *progress: told.append(progress)) == "finished"
    row, readings = store.sweep(sweep.id), store.readings(1)
    assert (row.state, row.step, row.steps, row.activity, row.error) == ("finished", 6, 6, "", None)
    assert keys(readings) == {
        (runtime, *shape) for runtime in ("onnxruntime", "torch") for shape in ((1, 128), (1, 16), (2, 128))
    }
    assert taken_at(Point("torch", 2, 128)) in readings
    assert measuring.calls == [(store.run(1).spec, HOW, SHAPE)]
    assert told[0] == ("onnxruntime: batch 1, 128 tokens", 0, 0)
    assert [step for _, step, of in told if of == 6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("request_", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_sweep_obeys_and_goes_on_without_measuring_again(
    store: Store, measuring: Measuring, request_: Any, state: str
) -> None:
    sweep = claimed(store)

    def ask(count: int) -> None:
        if count == 2:
            store.ask(sweep.job, request_)
            time.sleep(0.2)  # several beats

    measuring.after = ask
    assert worker.measure(store, sweep) == state
    assert (store.sweep(sweep.id).step, len(store.readings(1))) == (2, 2)
    measuring.after = lambda count: None
    assert store.resume(sweep.job) == "queued"
    assert worker.measure(store, claim(store)) == "finished"
    assert measuring.taken == points(HOW, store.run(1).spec.latency), "a point was measured twice"
    assert len(store.readings(1)) == 6


def test_a_sweep_whose_worker_is_killed_keeps_its_readings(store: Store, measuring: Measuring) -> None:
    def interrupt(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    measuring.after = interrupt
    sweep = claimed(store)
    with pytest.raises(KeyboardInterrupt):
        worker.measure(store, sweep)
    assert store.sweep(sweep.id).state == "interrupted"
    assert len(store.readings(1)) == 3
    measuring.after = lambda count: None
    store.resume(sweep.job)
    assert worker.measure(store, claim(store)) == "finished"
    assert len(store.readings(1)) == 6


def test_a_sweep_that_cannot_be_measured_fails_with_its_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise BadInput("There is no folder gone; name one.")

    monkeypatch.setattr(student_journals, "measure_sweep", refuse)
    sweep = claimed(store)
    assert worker.measure(store, sweep) == "failed"
    assert store.sweep(sweep.id).error == "There is no folder gone; name one."
    assert store.readings(1) == []


def test_a_candidate_over_budget_is_measured_like_any_other(store: Store, measuring: Measuring) -> None:
    assert worker.measure(store, claimed(store, candidate=2)) == "finished"
    assert measuring.calls[0][2] == TEACHER
    assert len(store.readings(2)) == 6
    assert store.readings(1) == []


@pytest.mark.usefixtures("own_signals", "measuring")
def test_a_worker_serves_sweeps_that_are_queued(store: Store) -> None:
    sweeps = [store.create_sweep(HOW, candidate) for candidate in (1, 2)]
    worker.serve(store.path, no_export, until_idle=True)
    assert [store.sweep(sweep).state for sweep in sweeps] == ["finished"] * 2


# --- the real thing, in torch, which needs no ONNX model --------------------------------------------------

TORCH = SweepSpec(runtimes=["torch"], batch_sizes=[1, 2], sequence_lengths=[8, 16, 512])


@pytest.fixture
def real(tiny_teacher: Path, corpus_file: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with a candidate of a tiny teacher, on a machine of its own."""
    with own_machine(tmp_path / "machine"), opened(tmp_path / "runs.db") as store:
        run = store.create_run(tiny_run(tiny_teacher, corpus_file), Worker.this_process())
        add_episode(store, run, 1, [Architecture(1, 16, 32, 2)])
        yield store


@pytest.mark.slow
def test_a_real_sweep_measures_beside_the_teacher_and_leaves_out_what_that_does_not_read(real: Store) -> None:
    note = student_journals.check_latency(real, real.candidate(1), TORCH)
    assert note == "The teacher reads fewer than 512 tokens, so 512 are left out."
    assert is_one_sentence(note)
    sweep = real.sweep(real.create_sweep(TORCH, 1, Worker.this_process()))
    assert worker.measure(real, sweep) == "finished", real.sweep(sweep.id).error
    readings = real.readings(1)
    assert keys(readings) == {("torch", 1, 16), ("torch", 1, 8), ("torch", 2, 16)}
    assert all(row.n >= 100 and row.teacher_p50 > 0 for row in readings)
    again = real.sweep(real.create_sweep(TORCH, 1, Worker.this_process()))
    assert worker.measure(real, again) == "finished"
    clean = [row for row in readings if row.clean]
    assert all(row in real.readings(1) for row in clean), "what is remembered was measured anew"


def test_a_real_sweep_is_paused_within_a_measurement(real: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(search_sweep, "points", lambda *given: [Point("torch", 64, 128)])
    sweep = real.sweep(real.create_sweep(TORCH, 1, Worker.this_process()))

    def told(activity: str, step: int, steps: int) -> None:
        if activity.startswith("torch"):
            real.ask(sweep.job, "pause")

    assert worker.measure(real, sweep, told) == "paused"
    assert real.readings(1) == []
