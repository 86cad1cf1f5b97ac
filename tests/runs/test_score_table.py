from __future__ import annotations

import pytest

from kdnas_core.runs.records import Score, Scored
from kdnas_core.runs.score_table import (
    ZERO_SHOT,
    Averages,
    ScoreRow,
    averages,
    figures_of,
    retained,
    score_rows,
)
from kdnas_core.students import scores as scoring


def of(subject: Scored, task: str, metric: str, *values: float) -> list[Score]:
    return [Score(subject, task, metric, seed, value, 5e-5) for seed, value in enumerate(values)]


def test_a_row_has_means_over_seeds_and_the_spread_of_the_students() -> None:
    scores = [
        *of("student", "sst2", "accuracy", 0.8, 0.9),
        *of("control", "sst2", "accuracy", 0.5, 0.6),
        *of("teacher", "sst2", "accuracy", 0.9, 1.0),
    ]
    (row,) = score_rows(scores)
    assert (row.task, row.metric) == ("sst2", "accuracy")
    assert (row.student, row.teacher, row.control) == pytest.approx((0.85, 0.95, 0.55))
    assert (row.retained, row.spread) == pytest.approx((0.85 / 0.95, 0.1 / 2**0.5))


def test_what_was_not_scored_yet_is_none_and_not_nought() -> None:
    teacher_only, student_only = of("teacher", "sst2", "accuracy", 0.9), of("student", "rte", "accuracy", 0.6)
    assert score_rows([*teacher_only, *student_only]) == [
        ScoreRow("sst2", "accuracy", None, 0.9, None, None, None),
        ScoreRow("rte", "accuracy", 0.6, None, None, None, None),
    ]
    assert averages([]) == Averages(None, None, None, None)
    assert score_rows([]) == []


def test_rows_come_in_the_order_in_which_they_were_scored() -> None:
    scores = [*of("student", "b", "f1", 1), *of("student", "a", "f1", 1), *of("student", "b", "accuracy", 1)]
    assert [(row.task, row.metric) for row in score_rows(scores)] == [
        ("b", "f1"),
        ("a", "f1"),
        ("b", "accuracy"),
    ]


def test_a_task_with_two_metrics_counts_once_in_the_average() -> None:
    scores = [
        *of("student", "mrpc", "accuracy", 0.6),
        *of("student", "mrpc", "f1", 0.8),
        *of("student", "rte", "accuracy", 0.5),
        *of("teacher", "mrpc", "accuracy", 0.8),
        *of("teacher", "mrpc", "f1", 0.8),
        *of("teacher", "rte", "accuracy", 0.8),
    ]
    found = averages(scores)
    assert (found.student, found.teacher, found.retained) == pytest.approx((0.6, 0.8, 0.75))
    assert found.control is None
    assert figures_of(scores) == pytest.approx({"mrpc": 0.7, "rte": 0.5})


def test_averages_of_a_scoring_on_its_way_are_over_what_both_were_scored_on() -> None:
    scores = [
        *of("student", "easy", "accuracy", 0.9),
        *of("teacher", "easy", "accuracy", 1.0),
        *of("student", "hard", "accuracy", 0.1),
    ]
    found = averages(scores)
    assert (found.student, found.teacher, found.retained) == pytest.approx((0.9, 1.0, 0.9))


def test_without_a_teacher_the_students_average_stands_alone() -> None:
    scores = [*of("student", "a", "accuracy", 0.4), *of("student", "b", "accuracy", 0.6)]
    assert averages(scores) == Averages(0.5, None, None, None)


@pytest.mark.parametrize("teacher", [None, 0.0, -0.1])
def test_nothing_is_a_share_of_nothing(teacher: float | None) -> None:
    assert retained(0.5, teacher) is None
    assert retained(None, teacher) is None


def test_what_was_compared_without_fine_tuning_enters_no_average() -> None:
    similar = [
        Score("student", f"stsb{ZERO_SHOT}", "spearman", 0, 0.2),
        Score("teacher", f"stsb{ZERO_SHOT}", "spearman", 0, 0.8),
    ]
    tuned = [*of("student", "stsb", "spearman", 0.6), *of("teacher", "stsb", "spearman", 0.8)]
    assert averages([*similar, *tuned]) == averages(tuned)
    assert averages(similar) == Averages(None, None, None, None)
    assert figures_of([*similar, *tuned]) == pytest.approx({"stsb (zero-shot)": 0.2, "stsb": 0.6})
    assert scoring.ZERO_SHOT == ZERO_SHOT
    found = [
        Score("student", f"papers{ZERO_SHOT}", metric, 0, value)
        for metric, value in (("ndcg@10, test", 0.3), ("recall@10, test", 0.9))
    ]
    assert figures_of(found) == {f"papers{ZERO_SHOT}": 0.3}  # nDCG alone
