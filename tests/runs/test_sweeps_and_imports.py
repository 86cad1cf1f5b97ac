"""Sweeps of latencies in the store, and imported runs."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.store.migrations import migrations
from kdnas_core.spec import DistilSpec, ObjectiveSpec, SweepSpec, quick_spec
from tests.filled_store import add_episode, begin_run, judge, reading, teacher_facts
from tests.sentences import is_one_sentence

VERSION_1 = Path(__file__).parent / "fixtures" / "version_1.db"
A, B = (Architecture(layers, 192, 768, 12) for layers in (2, 3))
USUAL = SweepSpec()
NARROW = SweepSpec(runtimes=["torch"], batch_sizes=[4], sequence_lengths=[])


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(db: Path) -> Iterator[Store]:
    """A store with one finished run of two candidates, 1 and 2."""
    with opened(db) as store:
        run = begin_run(store)
        for candidate in add_episode(store, run, 1, [A, B]):
            judge(store, run, candidate)
        store.end_run(run, "finished")
        yield store


def measured(
    milliseconds: float, runtime: str = "torch", batch_size: int = 1, length: int = 128
) -> LatencyReading:
    return replace(reading(milliseconds), runtime=runtime, batch_size=batch_size, sequence_length=length)


# --- sweeps -----------------------------------------------------------------------------------------------


def test_a_new_sweep_reads_back_as_it_was_asked_for(store: Store) -> None:
    before = time.time()
    row = store.sweep(store.create_sweep(NARROW, 2))
    assert (row.id, row.run, row.candidate, row.spec, row.state) == (1, 1, 2, NARROW, "queued")
    assert (row.job, row.job.title) == (Job("sweeps", 1), "Sweep 1")
    assert before <= row.created_at <= time.time()
    assert store.is_waiting()


def test_a_sweep_of_no_candidate_is_refused_and_not_made(store: Store) -> None:
    with pytest.raises(BadInput, match="no candidate 9"):
        store.create_sweep(USUAL, 9)
    assert store.sweeps() == []
    with pytest.raises(BadInput, match="no sweep 1") as refused:
        store.sweep(1)
    assert is_one_sentence(str(refused.value))


def test_sweeps_are_listed_newest_first_and_by_whose_they_are(store: Store) -> None:
    for candidate in (1, 2, 1):
        store.create_sweep(USUAL, candidate)
    assert [row.id for row in store.sweeps()] == [3, 2, 1]
    assert [row.id for row in store.sweeps(candidate=1)] == [3, 1]
    assert [row.id for row in store.sweeps(1)] == [3, 2, 1]
    assert store.sweeps(7) == []


def test_a_worker_claims_a_sweep_in_its_turn_and_it_ends_as_other_work_does(store: Store) -> None:
    store.create_sweep(USUAL, 1)
    store.create_student(1, DistilSpec())
    claimed = store.claim(Worker.this_process(), {"sweeps"})
    assert claimed is not None
    assert (claimed.job, claimed.state) == (Job("sweeps", 1), "running")
    assert store.claim(Worker.this_process(), {"sweeps"}) is None
    store.update_sweep(1, step=3, steps=30)
    store.set_activity(claimed.job, "timing")
    row = store.sweep(1)
    assert (row.step, row.steps, row.activity) == (3, 30, "timing")
    store.end(claimed.job, "finished")
    assert (store.sweep(1).state, store.sweep(1).activity) == ("finished", "")


def test_a_reading_takes_the_place_of_one_of_the_same_runtime_size_and_length(store: Store) -> None:
    sweep = store.create_sweep(USUAL, 1)
    first, other = measured(2.0), measured(3.0, batch_size=2)
    for found in (first, other, measured(1.5)):
        store.add_reading(sweep, found)
    assert store.readings(1) == [measured(1.5), other]
    assert store.readings(2) == []


def test_of_several_sweeps_the_newest_reading_counts_and_older_ones_stand_where_it_has_none(
    store: Store,
) -> None:
    old, new = store.create_sweep(USUAL, 1), store.create_sweep(USUAL, 1)
    store.add_reading(new, measured(2.0))  # written before the older sweep's: its sweep is newer all the same
    store.add_reading(old, measured(9.0))
    store.add_reading(old, measured(8.0, "onnxruntime-int8"))
    assert store.readings(1) == [measured(8.0, "onnxruntime-int8"), measured(2.0)]


def test_readings_come_by_runtime_size_and_length_and_not_as_text(store: Store) -> None:
    sweep = store.create_sweep(USUAL, 1)
    for size in (16, 2, 1):
        store.add_reading(sweep, measured(1.0, batch_size=size))
    store.add_reading(sweep, measured(1.0, "onnxruntime", length=512))
    found = [(row.runtime, row.batch_size, row.sequence_length) for row in store.readings(1)]
    assert found == [("onnxruntime", 1, 512), ("torch", 1, 128), ("torch", 2, 128), ("torch", 16, 128)]


def test_sweeps_go_with_their_run_and_their_readings_with_them(store: Store, db: Path) -> None:
    store.add_reading(store.create_sweep(USUAL, 1), measured(2.0))
    store.delete_run(1)
    assert store.sweeps() == []
    assert raw(db, "SELECT * FROM readings") == []


def test_a_sweep_is_deleted_alone_with_its_readings(store: Store, db: Path) -> None:
    for _ in range(2):
        store.add_reading(store.create_sweep(USUAL, 1), measured(2.0))
    store.delete(Job("sweeps", 1))
    assert [row.id for row in store.sweeps()] == [2]
    assert raw(db, "SELECT sweep FROM readings") == [(2,)]


def test_neither_a_running_sweep_nor_its_run_is_deleted(store: Store) -> None:
    sweep = store.create_sweep(USUAL, 1, worker=Worker.this_process())
    for job, told in ((Job("sweeps", sweep), "Sweep 1 is running"), (Job("runs", 1), "needed by sweep 1")):
        with pytest.raises(BadInput, match=told) as refused:
            store.delete(job)
        assert is_one_sentence(str(refused.value))
    store.end(Job("sweeps", sweep), "stopped")
    store.delete_run(1)
    assert store.runs() == []


# --- what comes back --------------------------------------------------------------------------------------


def came_back(store: Store, **student: Any) -> tuple[int, int, int | None]:
    candidate = {"loss": 0.25, "latency": reading(2.5).to_dict(), "scores": {"a": 0.5}, "weights": 1}
    return store.import_run(quick_spec(seed=6), teacher_facts(), A, candidate, student or None)


def test_a_run_comes_back_finished_with_one_judged_candidate(store: Store) -> None:
    run, candidate, student = came_back(store)
    assert (run, candidate, student) == (2, 3, None)
    row, (only,) = store.run(run), store.candidates(run)
    assert (row.spec, row.state, row.teacher, row.worker) == (
        quick_spec(seed=6).judged_by_layers(),
        "finished",
        teacher_facts(),
        None,
    )
    assert (row.episode, row.name) == (1, "quick")
    assert row.finished_at == row.created_at <= time.time()
    assert (only.id, only.architecture, only.state, only.weights) == (3, A, "done", True)
    assert (only.loss, only.latency, only.scores) == (0.25, reading(2.5), {"a": 0.5})
    assert not store.is_waiting()


def test_a_run_that_does_not_say_its_yardstick_was_judged_by_all_layers(store: Store) -> None:
    run, _, _ = came_back(store)
    objective = store.run(run).spec.objective
    assert (objective.yardstick, objective.recipe, objective.use) == ("layers", "kdnas", None)
    pkd = quick_spec().model_copy(update={"objective": ObjectiveSpec(recipe="pkd")})
    run, _, _ = store.import_run(pkd, teacher_facts(), A, {"loss": 0.25})
    assert store.run(run).spec == pkd.judged_by_layers()
    assert store.run(run).spec.objective.recipe == "pkd"


@pytest.mark.parametrize("makes_vectors", [True, False])
def test_a_run_that_says_its_yardstick_comes_back_with_it(store: Store, makes_vectors: bool) -> None:
    spec = quick_spec(seed=6).filled_for(makes_vectors)
    run, _, _ = store.import_run(spec, teacher_facts(), A, {"loss": 0.25})
    assert store.run(run).spec == spec


def test_its_student_comes_back_with_it(store: Store) -> None:
    how = DistilSpec(epochs=2, task="packaged")
    run, candidate, student = came_back(store, spec=how.model_dump_json(), loss=0.1, notes=["One."])
    assert student is not None
    row = store.student(student)
    assert (row.run, row.candidate, row.parent, row.spec) == (run, candidate, None, how)
    assert (row.state, row.loss, row.notes) == ("finished", 0.1, ("One.",))


def test_a_run_whose_teacher_was_never_measured_comes_back_without_one(store: Store) -> None:
    run, _, _ = store.import_run(quick_spec(), None, B, {"state": "failed"})
    assert store.run(run).teacher is None
    assert store.candidates(run)[0].state == "failed"


def test_a_run_comes_back_whole_or_not_at_all(store: Store, db: Path) -> None:
    with pytest.raises(sqlite3.Error):
        came_back(store, loss=0.1)  # a student must have a spec
    assert [run.id for run in store.runs()] == [1]
    assert raw(db, "SELECT COUNT(*) FROM candidates") == [(2,)]
    assert came_back(store)[0] == 2, "the store can be written as before"


def test_a_run_that_came_back_is_deleted_as_any_other(store: Store) -> None:
    run, _, _ = came_back(store, spec=DistilSpec().model_dump_json())
    store.delete_run(run)
    assert (len(store.runs()), store.students()) == (1, [])


# --- older files ------------------------------------------------------------------------------------------


def test_an_old_store_gets_sweeps_and_keeps_what_it_held(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db) as store:
        assert migrations.pending(store._db) == []
        known = store.candidates(1)
        assert known
        assert {candidate.estimated_ms for candidate in known} == {None}
        store.add_reading(store.create_sweep(USUAL, known[0].id), measured(2.0))
        assert store.readings(known[0].id) == [measured(2.0)]
        store.update_candidate(known[0].id, estimated_ms=12.5)
        assert store.candidate(known[0].id).to_dict()["estimated_ms"] == 12.5


def test_an_old_store_that_is_opened_for_reading_alone_has_no_sweeps_and_stays_as_it_is(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db, read_only=True) as store:
        assert (store.sweeps(), store.sweeps(1), store.readings(1)) == ([], [], [])
        assert store.candidates(1)[0].estimated_ms is None
    assert db.read_bytes() == VERSION_1.read_bytes()


def raw(db: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(db)) as connection, connection:
        return connection.execute(statement).fetchall()
