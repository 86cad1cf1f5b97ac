from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.proxies import proxies_of, read_scored
from kdnas_core.runs.records import Score
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec, ScoreSpec
from tests.filled_store import fill, reading


def score(store: Store, student: int, values: dict[str, float]) -> None:
    how = ScoreSpec(tasks=list(values))
    scoring = store.create_scoring(how, student=student, worker=Worker.this_process())
    store.add_scores(
        scoring, [Score("student", task, "accuracy", 0, value, 1e-4) for task, value in values.items()]
    )
    store.end(Job("scorings", scoring), "finished")


def add_scored(store: Store, scores: list[float], task: str | None = None) -> list[int]:
    """Distils and scores the first judged candidates of run 1; returns the students."""
    judged = [row for row in store.candidates(1) if row.state == "done"]
    made = []
    for candidate, value in zip(judged, scores, strict=False):
        student = store.create_student(candidate.id, DistilSpec(task=task), worker=Worker.this_process())
        store.update_student(student, loss=1 - value)
        store.end(Job("students", student), "finished")
        score(store, student, {"packaged": value, "sst2": value - 0.1})
        made.append(student)
    return made


@pytest.fixture
def db(tmp_path: Path) -> Path:
    fill(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def test_each_rung_and_the_sizes_are_compared_with_the_mean_score(db: Path) -> None:
    with opened(db) as store:
        students = add_scored(store, [0.7, 0.8, 0.9, 0.75])
        found = proxies_of(read_scored(store, 1))
        curves = {row.id: losses_by_step(store.layer_losses(row.id)) for row in store.candidates(1)}
    scores = dict(zip([f"s{student}" for student in students], [0.7, 0.8, 0.9, 0.75], strict=True))
    assert found is not None
    assert (found.tasks, sorted(found.students)) == (("packaged", "sst2"), [f"s{n}" for n in students])
    *steps, full, flops, parameters = found.rankings
    assert steps == [f"step {step}" for step in range(0, 81, 20)]
    assert (full, flops, parameters) == ("full", "flops", "parameters")
    assert found.rankings["full"].spearman == 1.0  # its loss was made of the score
    with opened(db, read_only=True) as store:
        by_latency = {f"s{student}": store.student(student).candidate for student in students}
    final = [curves[by_latency[name]][80] for name in found.students]
    values = [scores[name] for name in found.students]
    expected = spearmanr([-loss for loss in final], values).statistic
    assert found.rankings["step 80"].spearman == pytest.approx(expected)


def test_only_general_students_count_the_newest_of_each_candidate_with_all_its_scores(db: Path) -> None:
    with opened(db) as store:
        first, _, _ = add_scored(store, [0.7, 0.8, 0.9])
        add_scored(store, [0.1, 0.1, 0.1, 0.1], task="packaged")
        [again] = add_scored(store, [0.95])
        score(store, again, {"packaged": 0.96})
        on = store.create_student(
            store.student(again).candidate, DistilSpec(), parent=again, worker=Worker.this_process()
        )
        store.end(Job("students", on), "finished")
        score(store, on, {"packaged": 0.1})
        found = read_scored(store, 1)
        ranked = proxies_of(found)
    assert {each.student.id for each in found} == {again, first + 1, first + 2}
    assert ranked is not None and ranked.tasks == ("packaged", "sst2")


def test_one_that_was_not_scored_on_what_the_others_share_is_left_out(db: Path) -> None:
    with opened(db) as store:
        students = add_scored(store, [0.7, 0.8, 0.9])
        judged = [row for row in store.candidates(1) if row.state == "done"]
        other = store.create_student(judged[3].id, DistilSpec(), worker=Worker.this_process())
        store.end(Job("students", other), "finished")
        score(store, other, {"cola": 0.5})
        found = proxies_of(read_scored(store, 1))
    assert found is not None
    assert sorted(found.students) == [f"s{student}" for student in students]


def test_pairs_count_where_scores_differ_by_more_than_a_noise_that_is_known(db: Path) -> None:
    with opened(db) as store:
        add_scored(store, [0.7, 0.8, 0.9])
        rows = [
            replace(row, candidate=replace(row.candidate, latency=reading(4.0)))
            for row in read_scored(store, 1)
        ]
    for error, pairs in ((None, 0), (0.001, 3), (0.5, 0)):
        some = [
            replace(row, scores=[replace(each, error=error, rate=None) for each in row.scores])
            for row in rows
        ]
        found = proxies_of(some)
        assert found is not None
        assert found.rankings["flops"].pairs == pairs


def test_too_few_students_have_no_order(db: Path) -> None:
    with opened(db) as store:
        add_scored(store, [0.7, 0.8])
        assert proxies_of(read_scored(store, 1)) is None
    assert proxies_of([]) is None
