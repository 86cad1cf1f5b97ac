from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdnas_core.dashboard import figures, tables, wording
from kdnas_core.runs.rows import Candidate
from kdnas_core.runs.store import opened
from tests.filled_store import fill


@pytest.fixture
def plain(tmp_path: Path) -> Candidate:
    """One that was distilled, of a run without tasks."""
    db = tmp_path / "runs.db"
    fill(db)
    with opened(db) as store:
        rows = [row for run in store.runs() for row in store.candidates(run.id)]
    return next(row for row in rows if row.state == "done" and row.loss)


@pytest.fixture
def scored(plain: Candidate) -> Candidate:
    return dataclasses.replace(plain, scores={"sst2 (proxy)": 0.8, "cola (proxy)": 0.6, "sst2": 0.99})


def test_a_run_with_tasks_is_drawn_by_their_scores(plain: Candidate, scored: Candidate) -> None:
    titles = [
        figures.frontier_figure([row], budget_ms=None, teacher_ms=10.0).layout.yaxis.title.text
        for row in (plain, scored)
    ]
    assert titles == ["held-out loss", "1 − score on the tasks (proxy)"]


def test_a_candidate_is_told_by_what_judges_it(plain: Candidate, scored: Candidate) -> None:
    assert wording.judged(plain) == f"loss {plain.loss:.3f}"
    assert wording.judged(scored) == "score 0.700"


def test_the_table_has_a_column_of_scores_only_where_there_are_any(
    plain: Candidate, scored: Candidate
) -> None:
    assert "Task score" not in tables.candidates_table([plain])
    assert list(tables.candidates_table([scored])["Task score"]) == [pytest.approx(0.7)]
