"""A store of version 4 of the schema, whose candidates were judged by all their layers."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.store import opened
from kdnas_core.runs.store.migrations import migrations
from kdnas_core.spec import METHOD, DistilSpec, SweepSpec, quick_spec
from tests.filled_store import LANGUAGES, reading, teacher_facts
from tests.runs.make_version_1 import SHAPES
from tests.sentences import is_one_sentence

VERSION_4 = Path(__file__).parent / "fixtures" / "version_4.db"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A copy of the store, which a test may change."""
    return Path(shutil.copyfile(VERSION_4, tmp_path / "runs.db"))


@pytest.mark.parametrize("read_only", [True, False])
def test_its_runs_and_candidates_read_back(db: Path, read_only: bool) -> None:
    with opened(db, read_only=read_only) as store:
        paused, finished = store.runs()
        assert (finished.name, finished.state) == ("quick", "finished")
        assert store.run(finished.id).teacher == teacher_facts()
        assert (paused.name, paused.state, paused.spec.seed) == ("quick", "paused", 3)
        rows = store.candidates(finished.id)
        assert [row.state for row in rows] == ["done", "over_budget", "done"]
        assert [row.architecture for row in rows] == SHAPES
        assert [row.loss for row in rows] == [pytest.approx(0.50314505), None, pytest.approx(0.44706703)]
        assert [row.state for row in store.candidates(paused.id)] == ["done", "proposed"]
        assert rows[0].latency is not None and rows[0].latency.n == 100
        whole = store.candidate(rows[0].id).latency
        assert whole is not None and len(whole.samples) == 100
        losses = store.layer_losses(rows[0].id)
        assert {loss.term for loss in losses} == {"hidden"}
        assert len(losses) == 25  # 5 evaluations of 2 + 2 + 1 losses: the last layer's two teachers are one
        assert sum(loss.loss for loss in losses) == pytest.approx(17.154226)


@pytest.mark.parametrize("read_only", [True, False])
def test_its_students_scores_and_sweeps_read_back(db: Path, read_only: bool) -> None:
    with opened(db, read_only=read_only) as store:
        students = list(reversed(store.students()))
        states = [row.state for row in students]  # who worked at the third is gone
        assert states == ["finished", "finished", "interrupted", "paused", "failed"]
        assert [row.loss for row in students] == [0.2, 0.31, None, None, None]
        assert [(row.candidate, row.parent) for row in students] == [(1, None), (1, 1), *[(3, None)] * 3]
        assert students[0].spec == DistilSpec(epochs=3, cut="chunks")
        assert students[0].languages == pytest.approx({name: 0.2 * by for name, by in LANGUAGES.items()})
        assert store.student_losses(1)[-1].step == 6_000
        scored = {row.id: row.state for row in store.scorings()}
        assert scored == {1: "finished", 2: "finished", 3: "interrupted"}
        assert [len(store.scores(number)) for number in (1, 2, 3)] == [36, 36, 12]
        [sweep] = store.sweeps()
        assert (sweep.spec, sweep.state) == (SweepSpec(), "queued")
        [found] = store.readings(1)
        assert isinstance(found, LatencyReading)
        assert found == reading(3.0)


@pytest.mark.parametrize("read_only", [True, False])
def test_its_runs_were_judged_by_all_layers(db: Path, read_only: bool) -> None:
    with opened(db, read_only=read_only) as store:
        for run in store.runs():
            objective = run.spec.objective
            assert (objective.yardstick, objective.recipe, objective.use) == ("layers", "kdnas", None)
            for row in store.candidates(run.id):
                assert (row.loss_se, row.cut_from) == (None, ())
                assert (row.to_dict()["loss_se"], row.to_dict()["cut_from"]) == (None, [])
        assert {(row.loss_se, row.cut_from) for row in store.students()} == {(None, ())}


def test_it_is_left_as_it_is_by_one_who_only_reads(db: Path) -> None:
    with opened(db, read_only=True) as store:
        assert len(store.runs()) == 2
    assert db.read_bytes() == VERSION_4.read_bytes()


def test_it_gets_standard_errors_and_cuts_and_keeps_what_it_held(db: Path) -> None:
    with opened(db, read_only=True) as store:
        before = store.candidates(1), store.students(), store.layer_losses(1)
    with opened(db) as store:
        assert migrations.pending(store._db) == []
        assert (store.candidates(1), store.students(), store.layer_losses(1)) == before
        store.update_candidate(1, loss_se=0.01, cut_from=[{"layer": 2, "heads": [1]}])
        store.update_student(1, loss_se=0.02, cut_from=[{"layer": 2, "heads": [1]}])
    with opened(db, read_only=True) as store:
        assert (store.candidate(1).loss_se, store.student(1).loss_se) == (0.01, 0.02)
        assert store.candidate(1).cut_from == store.student(1).cut_from != ()


def test_its_run_with_a_judged_candidate_is_not_mixed_with_candidates_judged_otherwise(db: Path) -> None:
    with opened(db) as store:
        before = store.run(2), store.candidates(2)
        with pytest.raises(BadInput, match="another version") as refused:
            store.resume(2)
        assert is_one_sentence(str(refused.value))
        assert (store.run(2), store.candidates(2)) == before


def test_its_run_without_a_judged_candidate_goes_on_by_what_is_usual_now(db: Path) -> None:
    with opened(db) as store:
        store._db.execute("DELETE FROM candidates WHERE run = 2")
        assert store.resume(2) == "queued"
        assert store.run(2).spec.objective.yardstick is None
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("SELECT method FROM runs ORDER BY id").fetchall() == [(2,), (METHOD,)]


def test_what_was_queued_and_not_judged_is_worked_on_as_a_run_of_this_version(db: Path) -> None:
    with opened(db) as store:
        store._db.execute("DELETE FROM candidates WHERE run = 2")
        store._db.execute("UPDATE jobs SET state = 'queued' WHERE kind = 'runs' AND subject = 2")
        claimed = store.claim_run(Worker.this_process())
        assert claimed is not None
        assert (claimed.id, claimed.spec.objective.yardstick) == (2, None)


def test_what_was_queued_with_a_judged_candidate_fails_in_a_sentence_and_the_next_is_taken(db: Path) -> None:
    with opened(db) as store:
        store._db.execute("UPDATE jobs SET state = 'queued' WHERE kind = 'runs' AND subject = 2")
        newer = store.create_run(quick_spec())
        claimed = store.claim_run(Worker.this_process())
        assert claimed is not None
        assert claimed.id == newer
        refused = store.run(2)
        assert (refused.state, len(store.candidates(2))) == ("failed", 2)
        assert refused.error is not None and is_one_sentence(refused.error)
        assert store.claim_run(Worker.this_process()) is None


def test_a_new_run_in_it_is_not_judged_by_all_layers(db: Path) -> None:
    with opened(db) as store:
        run = store.create_run(quick_spec())
        assert store.run(run).spec == quick_spec()
        assert store.run(run).spec.objective.yardstick is None
        spec = quick_spec().filled_for(makes_vectors=True)
        store.claim_run(Worker.this_process())
        store.set_teacher(run, spec, teacher_facts())
        assert store.run(run).spec == spec
        store.end(Job("runs", run), "stopped")
