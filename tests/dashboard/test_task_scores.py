from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model_page import scores_section
from kdnas_core.dashboard.run import frontier_figure
from kdnas_core.dashboard.ui import tables
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import opened
from kdnas_core.spec import ScoreSpec
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
        frontier_figure.frontier_figure(Findings.of([row], None), teacher_ms=10.0).layout.yaxis.title.text
        for row in (plain, scored)
    ]
    assert titles == ["agreement with the teacher, %", "score on the tasks, % (proxy)"]


def test_a_candidate_is_told_by_what_judges_it(plain: Candidate, scored: Candidate) -> None:
    assert plain.loss is not None
    assert wording.judged(plain) == f"agreement {100 * (1 - plain.loss):.1f} ± 0.6 %"
    assert wording.judged(scored) == "score 0.700"


def test_a_scored_candidate_is_drawn_at_its_score_in_per_cent(scored: Candidate) -> None:
    figure = frontier_figure.frontier_figure(Findings.of([scored], None), teacher_ms=10.0)
    assert list(figure.data[0].y) == [pytest.approx(70.0)]


@pytest.mark.parametrize(
    ("loss", "standard_error", "words"),
    [
        (0.412, 0.004, "58.8 ± 0.4 %"),
        (0.412, None, "58.8 %"),
        (0.412, 0.0, "58.8 ± 0.0 %"),
        (0.0, None, "100.0 %"),
        (1.25, None, "-25.0 %"),
        (None, None, "–"),
        (None, 0.004, "–"),
        (math.nan, None, "–"),
        (math.inf, 0.004, "–"),
    ],
)
def test_an_agreement_reads_in_per_cent_with_its_standard_error(
    loss: float | None, standard_error: float | None, words: str
) -> None:
    assert wording.agreement(loss, standard_error) == words


def test_the_table_tells_agreement_and_its_standard_error_where_any_has_one(plain: Candidate) -> None:
    table = tables.candidates_table([plain])
    assert plain.loss is not None
    assert list(table["Agreement"]) == [pytest.approx(100 * (1 - plain.loss))]
    assert list(table["±"]) == [pytest.approx(0.6)]
    assert "±" not in tables.candidates_table([dataclasses.replace(plain, loss_se=None)])


def test_the_table_has_a_column_of_scores_only_where_there_are_any(
    plain: Candidate, scored: Candidate
) -> None:
    assert "Task score" not in tables.candidates_table([plain])
    assert list(tables.candidates_table([scored])["Task score"]) == [pytest.approx(0.7)]


def test_a_scoring_names_seeds_and_split_unless_all_of_it_is_retrieval() -> None:
    told = scores_section.how(ScoreSpec(tasks=["packaged", "packaged-retrieval"]))
    assert told == "packaged, packaged-retrieval · 3 seeds · validation split"
    assert scores_section.how(ScoreSpec(tasks=["packaged-retrieval"])) == "packaged-retrieval"
