from __future__ import annotations

import math

import pytest
from scipy.stats import t

from kdnas_core.runs.records import Score, Scored
from kdnas_core.runs.score_table import (
    ZERO_SHOT,
    Averages,
    ScoreRow,
    averages,
    chances_of,
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


def exactly(
    subject: Scored, task: str, metric: str, *values: float, error: float, chance: float | None = 0.5
) -> list[Score]:
    return [
        Score(subject, task, metric, seed, value, 5e-5, error, chance) for seed, value in enumerate(values)
    ]


def test_an_interval_is_by_the_rows_that_all_seeds_share_and_by_the_seeds() -> None:
    scores = [
        *exactly("student", "sst2", "accuracy", 0.80, 0.86, 0.83, error=0.04),
        *exactly("teacher", "sst2", "accuracy", 0.90, 0.90, error=0.03),
    ]
    (row,) = score_rows(scores)
    by_rows, by_seeds = 0.04**2, 0.03**2 / 3
    freedom = (by_rows + by_seeds) ** 2 / (by_seeds**2 / 2)
    assert row.interval == pytest.approx(t.ppf(0.975, freedom) * (by_rows + by_seeds) ** 0.5)
    assert row.teacher_interval == pytest.approx(1.959964 * 0.03)
    assert row.chance == 0.5
    assert row.above_chance == pytest.approx((0.83 - 0.5) / (0.9 - 0.5))
    assert row.within_noise  # 0.07 is 1.3 errors of the difference


def test_few_seeds_that_differ_make_an_interval_as_wide_as_students_t() -> None:
    (row,) = score_rows(exactly("student", "rte", "accuracy", 0.5, 0.6, error=0.0))
    assert row.interval == pytest.approx(12.7062 * 0.05, rel=1e-4)


@pytest.mark.parametrize(("difference", "within"), [(0.04, True), (0.07, False), (-0.07, False), (0.0, True)])
def test_a_difference_of_more_than_two_standard_errors_is_more_than_noise(
    difference: float, within: bool
) -> None:
    scores = [
        *exactly("student", "sst2", "accuracy", *[0.9 - difference] * 2, error=0.02),
        *exactly("teacher", "sst2", "accuracy", 0.9, 0.9, error=0.02),
    ]
    assert score_rows(scores)[0].within_noise is within
    assert averages(scores).within_noise is within


def test_equal_scores_without_any_error_are_no_difference() -> None:
    scores = [
        *exactly("student", "cola", "matthews", 0.0, 0.0, error=0.0),
        *exactly("teacher", "cola", "matthews", 0.0, 0.0, error=0.0),
    ]
    assert score_rows(scores)[0].within_noise is True


def test_of_one_fine_tuned_seed_no_interval_is_told_but_of_what_is_not_trained() -> None:
    tuned, as_it_is = (
        [Score(who, "sst2", "accuracy", 0, 0.8, rate, 0.02, 0.5) for who in ("student", "teacher")]
        for rate in (1e-4, None)
    )
    (row,) = score_rows(tuned)
    assert (row.interval, row.within_noise) == (None, None)
    assert score_rows(as_it_is)[0].interval == pytest.approx(1.959964 * 0.02)


def test_of_a_teacher_that_is_within_noise_of_chance_no_share_above_it_is_told() -> None:
    scores = [
        *exactly("student", "rte", "accuracy", 0.56, 0.56, error=0.03),
        *exactly("teacher", "rte", "accuracy", 0.55, 0.55, error=0.03),
    ]
    (row,) = score_rows(scores)
    assert (row.chance, row.above_chance) == (0.5, None)
    assert row.retained == pytest.approx(0.56 / 0.55)


def test_the_interval_of_an_average_takes_tasks_for_independent_and_metrics_for_the_same() -> None:
    scores = [
        *exactly("student", "mrpc", "f1", 0.8, 0.8, error=0.05, chance=0.8),
        *exactly("student", "mrpc", "accuracy", 0.7, 0.7, error=0.05, chance=0.6),
        *exactly("student", "cola", "matthews", 0.3, 0.3, error=0.03, chance=0.0),
        *exactly("teacher", "mrpc", "f1", 0.9, 0.9, error=0.03, chance=0.8),
        *exactly("teacher", "mrpc", "accuracy", 0.9, 0.9, error=0.03, chance=0.6),
        *exactly("teacher", "cola", "matthews", 0.5, 0.5, error=0.04, chance=0.0),
    ]
    found = averages(scores)
    halves = [1.959964 * math.hypot(*errors) / 2 for errors in ((0.05, 0.03), (0.03, 0.04))]
    assert (found.interval, found.teacher_interval) == pytest.approx(tuple(halves))
    assert found.chance == pytest.approx(0.35)
    assert found.above_chance == pytest.approx(((0.75 + 0.3) / 2 - 0.35) / ((0.9 + 0.5) / 2 - 0.35))


def test_scores_without_errors_have_no_interval_and_no_verdict() -> None:
    scores = [*of("student", "a", "accuracy", 0.4, 0.5), *of("teacher", "a", "accuracy", 0.6)]
    scores += exactly("student", "b", "accuracy", 0.4, 0.4, error=0.1)
    for found in (score_rows(scores)[0], averages(scores)):
        assert (found.interval, found.chance, found.above_chance, found.within_noise) == (None,) * 4


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


def test_the_chance_of_a_task_is_the_mean_over_its_metrics_and_0_for_correlations() -> None:
    scores = [
        *exactly("student", "mrpc", "accuracy", 0.8, error=0.1, chance=0.7),
        *exactly("student", "mrpc", "f1", 0.8, error=0.1, chance=0.8),
        *exactly("student", "stsb", "spearman, test", 0.8, error=0.1, chance=None),
        *exactly("student", "old", "accuracy", 0.8, error=0.1, chance=None),
        *exactly("student", "half", "accuracy", 0.8, error=0.1, chance=0.5),
        *exactly("student", "half", "f1", 0.8, error=0.1, chance=None),
    ]
    assert chances_of(scores) == pytest.approx({"mrpc": 0.75, "stsb": 0.0})
