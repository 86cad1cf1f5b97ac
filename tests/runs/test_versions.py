"""Stores of every version of the schema can be opened, read and resumed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from kdnas_core.architecture import Architecture
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.store import opened
from kdnas_core.runs.store.migrations import migrations
from kdnas_core.spec import DistilSpec, quick_spec

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(FIXTURES.glob("version_*.db"), key=lambda path: int(path.stem.rpartition("_")[2]))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.stem)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(request.param, tmp_path / "runs.db"))


def test_there_is_one_of_each_version_before_this() -> None:
    names = [f"version_{number}" for number in range(1, len(list(migrations.pending(Database(memory=True)))))]
    assert [path.stem for path in VERSIONS] == names


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_an_earlier_version_reads_back(db: Path, read_only: bool) -> None:
    before = db.read_bytes()
    with opened(db, read_only=read_only) as store:
        states = {run.state for run in store.runs()}
        assert "finished" in states and "paused" in states
        finished = next(run for run in store.runs() if run.state == "finished")
        teacher = store.run(finished.id).teacher
        assert teacher is not None and len(teacher.latency.samples) == teacher.latency.n == 100
        done = [row for row in store.candidates(finished.id) if row.state == "done"]
        assert done and all(row.loss is not None and row.reward is not None for row in done)
        whole = store.candidate(done[0].id)
        assert whole == done[0]
        assert whole.latency is not None and len(whole.latency.samples) == 100
        assert store.layer_losses(done[0].id)
        for student in store.students():
            assert student.state != "running"  # who worked at it is gone
            assert store.work(student.job) == student
        for scoring in store.scorings():
            assert scoring.state == "interrupted" or store.scores(scoring.id)
    if read_only:
        assert db.read_bytes() == before


def test_a_store_of_an_earlier_version_goes_on(db: Path) -> None:
    with opened(db) as store:
        runs = store.runs()
        new = store.create_run(quick_spec())
        assert new == max(run.id for run in runs) + 1
        claimed = store.claim_run(Worker.this_process())
        assert claimed is not None and claimed.id == new
        leased = store.leased(claimed.lease)
        leased.begin_episode(new, 1, [(Architecture(3, 192, 768, 12), 0.5)])
        leased.end_run(new, "finished")
        student = store.create_student(store.candidates(new)[0].id, DistilSpec())
        assert store.student(student).state == "queued"
        for run in runs:
            store.delete_run(run.id)
        assert [run.id for run in store.runs()] == [new]
    with closing(sqlite3.connect(db)) as raw:
        assert raw.execute("SELECT kind, subject FROM jobs ORDER BY id").fetchall() == [
            ("runs", new),
            ("students", student),
        ]
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []


def test_an_earlier_version_comes_to_the_schema_of_a_new_store(db: Path, tmp_path: Path) -> None:
    def schema(path: Path) -> set[tuple[str, str]]:
        with opened(path):
            pass
        with closing(sqlite3.connect(path)) as raw:
            tables = raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return {
                (name, str(column[1:3]))
                for (name,) in tables
                for column in raw.execute(f"PRAGMA table_info({name})")
            }

    assert schema(db) == schema(tmp_path / "new.db")
