from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import spearmanr

from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.proxies import Scored, proxies_of, read_scored
from kdnas_core.runs.records import Score
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec, ScoreSpec
from tests.filled_store import fill


def score(store: Store, student: int, values: dict[str, float]) -> None:
    scoring = store.create_scoring(
        ScoreSpec(tasks=["packaged"]), student=student, worker=Worker.this_process()
    )
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


def test_only_general_students_of_tasks_that_all_share_count_the_newest_of_each_candidate(db: Path) -> None:
    with opened(db) as store:
        first, _, _ = add_scored(store, [0.7, 0.8, 0.9])
        add_scored(store, [0.1, 0.1, 0.1, 0.1], task="packaged")
        [again] = add_scored(store, [0.95])
        score(store, again, {"packaged": 0.96})
        found = read_scored(store, 1)
        ranked = proxies_of(found)
    assert {each.student.id for each in found} == {again, first + 1, first + 2}
    assert ranked is not None and ranked.tasks == ("packaged",)


def test_too_few_students_have_no_order(db: Path) -> None:
    with opened(db) as store:
        add_scored(store, [0.7, 0.8])
        assert proxies_of(read_scored(store, 1)) is None
    assert proxies_of([]) is None


def test_students_without_a_task_in_common_are_not_compared(db: Path) -> None:
    with opened(db) as store:
        add_scored(store, [0.7, 0.8, 0.9])
        rows = read_scored(store, 1)
    other = [
        Scored(row.student, row.candidate, row.losses, row.scores[place : place + 1])
        for place, row in enumerate([rows[0], rows[1]])
    ]
    assert proxies_of([*other, rows[2]]) is None
