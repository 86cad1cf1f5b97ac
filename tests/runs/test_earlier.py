from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdnas_core.runs.earlier import earlier_outcomes
from kdnas_core.runs.store import opened
from kdnas_core.search.loop import Outcome
from kdnas_core.spec import RunSpec
from tests.filled_store import TEACHER_MS, begin_run, fill


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A store with one finished search."""
    fill(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def found(db: Path, change: dict[str, Any] | None = None, teacher_ms: float = TEACHER_MS) -> list[Outcome]:
    """What a run with the spec of the first, but for a change, learns from it."""
    with opened(db) as store:
        spec = store.run(1).spec.model_copy(update=change or {})
        run = store.run(store.create_run(spec))
        return earlier_outcomes(store, run, spec, teacher_ms)


def test_a_search_learns_from_what_was_judged_in_the_same_way(db: Path) -> None:
    with opened(db) as store:
        done = [row for row in store.candidates(1) if row.state == "done"]
    outcomes = found(db, {"seed": 5, "name": "another"})
    assert [(each.architecture, each.loss) for each in outcomes] == [
        (row.architecture, row.loss) for row in done
    ]
    # scaled to the teacher's latency in the new run
    slower = found(db, teacher_ms=2 * TEACHER_MS)
    assert [each.ms for each in slower] == pytest.approx([2 * (each.ms or 0) for each in outcomes])


def test_what_does_not_compare_is_left_out(db: Path) -> None:
    spec = RunSpec()
    with opened(db) as store:
        first = store.run(1).spec
    for change in (
        {"corpus": "other.txt"},
        {"proxy": first.proxy.model_copy(update={"steps": 9})},
        {"latency": first.latency.model_copy(update={"sequence_length": 64})},
        {"tasks": ["packaged"]},
        {"objective": first.objective.model_copy(update={"recipe": "kdnas"})},
    ):
        assert found(db, change) == []
    assert found(db, {"latency": first.latency.model_copy(update={"budget_speedup": 7.0})})
    assert found(db, {"space": first.space.model_copy(update={"layers": [1]})})
    assert spec.search.warm_start is False


def test_a_search_that_had_not_ended_is_not_learnt_from(db: Path) -> None:
    with opened(db) as store:
        run = store.run(1)
        other = begin_run(store, run.spec)
        store.begin_episode(other, 1, [(row.architecture, None) for row in store.candidates(1)[:2]])
        before = earlier_outcomes(store, store.run(other), run.spec, TEACHER_MS)
        store.end_run(other, "finished")  # after the next one was created
        assert earlier_outcomes(store, store.run(other), run.spec, TEACHER_MS) == before
        assert earlier_outcomes(store, run, run.spec, TEACHER_MS) == []


def test_students_of_another_supernet_do_not_compare(db: Path) -> None:
    with opened(db) as store:
        objective = store.run(1).spec.objective.model_copy(update={"start": "supernet"})
        spec = store.run(1).spec.model_copy(update={"objective": objective})
        store.extend(1, spec)
        store.end_run(1, "finished")
    assert found(db)
    with opened(db) as store:
        space = store.run(1).spec.space.model_copy(update={"layers": [1]})
    assert found(db, {"space": space}) == []
