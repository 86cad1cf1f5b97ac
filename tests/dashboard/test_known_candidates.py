from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.read import known_candidates, live
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store, opened
from tests.filled_store import add_episode, begin_run, fill, judge


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def whole(db: Path, run: int) -> list[Candidate]:
    with opened(db, read_only=True) as store:
        return store.candidates(run)


def test_what_is_known_is_always_what_the_store_has(db: Path) -> None:
    run = fill(db, episodes=1, state="running")
    assert live.read_run(db, run).candidates == whole(db, run)
    with opened(db) as store:
        first, second = add_episode(store, run, 2, [Architecture(2, 96, 768, 6), Architecture(3, 96, 384, 3)])
        assert live.read_run(db, run).candidates == whole(db, run)
        judge(store, run, first)
        assert live.read_run(db, run).candidates == whole(db, run)
        store.update_candidate(second, notes=["a sentence"])
    assert live.read_run(db, run).candidates == whole(db, run)


def test_an_update_reads_the_changed_candidates_alone(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fill(db, episodes=1, state="running")
    live.read_run(db, run)
    read: list[int] = []
    since = Store.candidates_since

    def noted(store: Store, run: int, revision: int) -> list[Candidate]:
        rows = since(store, run, revision)
        read.extend(row.id for row in rows)
        return rows

    monkeypatch.setattr(Store, "candidates_since", noted)
    live.read_run(db, run)
    assert read == []
    with opened(db) as store:
        store.update_candidate(2, loss=0.123)
    assert live.read_run(db, run).candidates[1].loss == 0.123
    assert read == [2]


def test_the_steps_of_a_mini_kd_alone_are_no_change(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        [candidate] = add_episode(store, run, 1, [Architecture(2, 96, 384, 3)])
        drawn = live.read_run(db, run)
        store.update_candidate(candidate, step=20)
        assert live.newer(db, drawn)[1] is False
        store.update_candidate(candidate, state="distilling")
        assert live.newer(db, drawn)[1] is True


def test_a_page_is_newer_with_each_state_and_each_step_of_a_student(db: Path) -> None:
    run = fill(db, students=True)
    drawn = live.read_run(db, run)
    assert live.newer(db, drawn)[1] is False
    with opened(db) as store:
        store.update_student(drawn.students[0].id, step=7)
    assert live.newer(db, drawn)[1] is True


def test_a_store_that_was_put_back_is_read_anew(db: Path, tmp_path: Path) -> None:
    run = fill(db)
    shutil.copyfile(db, tmp_path / "before.db")
    with opened(db) as store:
        store.update_candidate(2, loss=0.123)
    assert live.read_run(db, run).candidates[1].loss == 0.123
    shutil.copyfile(tmp_path / "before.db", db)
    assert live.read_run(db, run).candidates == whole(db, run)


def test_sessions_that_read_at_once_see_what_was_written(db: Path) -> None:
    run = fill(db)
    with opened(db) as store, ThreadPoolExecutor(8) as pool:
        for round_ in range(10):
            store.update_candidate(2, loss=round_ / 10)
            read = list(pool.map(lambda _: live.read_run(db, run).candidates, range(8)))
            assert {rows[1].loss for rows in read} == {round_ / 10}
            assert {len(rows) for rows in read} == {16}


def test_no_more_runs_are_known_than_some(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_candidates, "MOST_RUNS", 2)
    with opened(db) as store:
        runs = [begin_run(store) for _ in range(4)]
    for run in runs:
        live.read_run(db, run)
    assert len(known_candidates._known) == 2


@pytest.mark.parametrize("version", [1, 4, 10])
def test_a_store_of_an_earlier_version_is_shown(db: Path, version: int) -> None:
    fixtures = Path(__file__).parents[1] / "runs" / "fixtures"
    shutil.copyfile(fixtures / f"version_{version}.db", db)
    rows = live.read_run(db, 1).candidates
    assert rows
    assert rows == whole(db, 1) == live.read_run(db, 1).candidates
