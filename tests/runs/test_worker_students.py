"""Students that a separate worker process really distils."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import Student
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.worker import distil, work_on
from kdnas_core.spec import DistilSpec
from tests.runs.test_worker import resume, start_worker, workers_of
from tests.tiny_runs import own_machine, remember_latencies, tiny_run, wait_for

LONG = DistilSpec(epochs=8, sequence_length=16, batch_size=8)  # 400 steps of some hundredths of a second


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture
def db(tiny_teacher: Path, corpus_file: Path, tmp_path: Path) -> Iterator[Path]:
    """A store with a real search of one candidate; all its workers are killed when the test is over."""
    path = tmp_path / "runs.db"
    spec = tiny_run(tiny_teacher, corpus_file, search={"episodes": 1, "candidates": 1, "keep_weights": "all"})
    remember_latencies(spec)
    with opened(path) as store:
        work_on(store, store.run(store.create_run(spec, Worker.this_process())))
    yield path
    for process in workers_of(path):
        process.kill()


def serving(store: Store) -> int:
    """Returns the pid of the worker that distils a student."""
    (pid, *_) = wait_for(
        lambda: [row.worker.pid for row in store.students() if row.state == "running" and row.worker]
    )
    return pid


def past(store: Store, student: int, step: int) -> Student:
    def look() -> Student | None:
        row = store.student(student)
        assert row.state != "failed", row.error
        return row if row.step >= step or row.state == "finished" else None

    return wait_for(look)  # type: ignore[return-value]


@pytest.mark.slow
def test_a_student_outlives_a_kill_and_a_polite_kill_keeps_its_last_step(db: Path) -> None:
    with opened(db) as store:
        student = store.create_student(1, LONG)
        start_worker(db)
        past(store, student, 100)  # so that it is below this for seconds when it begins anew
        os.kill(serving(store), signal.SIGKILL)
        wait_for(lambda: store.student(student).state == "interrupted", seconds=5)
        killed = store.student(student)

        resume(db, student_name := f"s{student}")
        pid = wait_for(lambda: serving(store))
        wait_for(lambda: store.student(student).step < killed.step)  # no checkpoint yet: it restarts
        past(store, student, 40)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not psutil.pid_exists(pid) or store.student(student).state == "interrupted")
        kept = store.student(student)
        assert (kept.state, kept.loss) == ("interrupted", None)
        assert kept.finished_at is not None, "it was written, not concluded from the dead process"
        assert (store.student_files(1, student) / "checkpoint.safetensors").is_file()

        store.ask(Job("students", student), "stop")
        resume(db, student_name)
        (went_on, *_) = wait_for(lambda: [now for now in [store.student(student)] if now.step != kept.step])
        assert went_on.step > kept.step, "it began anew"
        wait_for(lambda: store.student(student).state == "finished")
        row = store.student(student)
        assert (row.step, row.error) == (row.steps, None)

        twin = store.student(store.create_student(1, LONG, worker=Worker.this_process()))
        assert distil(store, twin) == "finished"
        assert row.loss == pytest.approx(store.student(twin.id).loss, rel=1e-3)
        ours, theirs = store.student_losses(student), store.student_losses(twin.id)
        assert [(loss.step, loss.layer) for loss in ours] == [(loss.step, loss.layer) for loss in theirs]
        assert not (store.student_files(1, student) / "checkpoint.safetensors").exists()
