from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas_core.architecture import static_student
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model import time_estimate
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.model_page import distil_form, scores_section, student_loss, students_section
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.read.live_students import StudentView
from kdnas_core.errors import BadInput
from kdnas_core.hardware import device_name
from kdnas_core.resampling import packed
from kdnas_core.runs.records import Candidate, Run, Score, Scored
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, ObjectiveSpec
from tests.filled_store import fill
from tests.served import Served, served

__all__ = ["served"]  # the fixture


@pytest.fixture
def db(tmp_path: Path) -> Path:
    fill(tmp_path / "runs.db", students=True)
    return tmp_path / "runs.db"


def silent(sentence: str) -> None:
    """Ignores the sentence."""


def test_a_student_comes_with_all_that_its_page_shows(db: Path) -> None:
    seen = live_students.read_student(db, 1)
    assert (seen.student.id, seen.candidate.id, seen.run.id) == (1, 1, 1)
    assert [child.id for child in seen.children] == [2]
    assert seen.size == 5_000_002
    assert seen.losses[-1].step == 6_000
    with pytest.raises(BadInput, match="no student s99"):
        live_students.read_student(db, 99)


def test_students_and_scorings_are_read_by_whose_they_are(db: Path) -> None:
    candidate = live.read_candidate(db, 2).candidate
    assert [row.id for row in live_students.read_students_of(db, candidate)] == [5, 4, 3]
    [of_candidate] = live_students.read_scorings(db, candidate=1)
    [of_student] = live_students.read_scorings(db, student=1)
    assert (of_candidate.scoring.subject, of_student.scoring.subject) == ("1", "s1")
    assert [view.scoring.id for view in live_students.read_systems(db)] == [1, 2]


def test_several_students_are_queued_in_the_order_asked_for_after_one_check(db: Path, served: Served) -> None:
    check = requests.distil(db, ["3", "2"], {"epochs": 1.0, "corpus": ""})
    assert requests.queued(requests.outcome(db, check, silent)) == "Students s6, s7 are queued."
    with opened(db, read_only=True) as store:
        assert [(row.candidate, row.spec) for row in store.students()[:2]] == [
            (2, DistilSpec(epochs=1)),
            (3, DistilSpec(epochs=1)),
        ]
    assert [(check.wanted, check.sources) for check in served.checks] == [("students", ("3", "2"))]
    assert served.stores == [db]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"corpus": "/nowhere.txt"}, "nowhere"),
        ({"task": "/nowhere"}, "no folder"),
        ({"task": "hub:"}, "does not name a data set"),
        ({"task": "packaged", "glove": "/nowhere"}, "word vectors"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    db: Path, served: Served, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        requests.distil(db, ["1"], fields)
    assert served.checks == []


def test_a_student_that_is_not_finished_is_neither_scored_nor_made_task_specific(
    db: Path, served: Served
) -> None:
    with pytest.raises(BadInput, match="let it finish first"):
        requests.outcome(db, requests.score(db, "s3", {"tasks": ["packaged"]}), silent)
    with pytest.raises(BadInput, match="let it finish first"):
        requests.outcome(db, requests.distil(db, ["s3"], {"task": "packaged"}), silent)


def test_tasks_are_listed_by_commas_or_lines_each_once() -> None:
    assert requests.tasks_of("packaged, a b\nhub:x/y:z,packaged,") == ["packaged", "a b", "hub:x/y:z"]
    with pytest.raises(BadInput, match="at least one task"):
        requests.tasks_of(" ,\n")


def best_first(snapshot: Snapshot, budget: float) -> list[Candidate]:
    found = Findings.of(snapshot.candidates, Limit(budget))
    return students_section.best_first(snapshot, found)


def test_the_best_come_with_the_least_loss_first_and_without_those_that_are_distilled(db: Path) -> None:
    snapshot = live.read_run(db, 1)
    losses = [row.point[1] for row in best_first(snapshot, 9.54)]
    assert losses == sorted(losses)
    first = best_first(snapshot, 9.54)[0]
    with opened(db) as store:
        student = store.create_student(first.id, DistilSpec())
        after = best_first(live.read_run(db, 1), 9.54)
        assert first.id not in [row.id for row in after]
        store.ask(store.student(student).job, "stop")
    assert best_first(live.read_run(db, 1), 9.54)[0].id == first.id
    assert all(row.point[0] <= 3 for row in best_first(snapshot, 3.0))


def test_the_pick_comes_before_what_is_better_and_tied_with_it(db: Path) -> None:
    snapshot = live.read_run(db, 1)
    best, next_ = best_first(snapshot, 9.54)[:2]
    assert next_.point[0] < best.point[0]
    noise = np.random.default_rng(0).standard_normal(100)
    read = {
        best.id: packed((best.point[1] + noise).tolist()),
        next_.id: packed((next_.point[1] - noise).tolist()),
    }
    tied = [
        dataclasses.replace(row, resampled=read.get(row.id, b""), loss_se=1.0) for row in snapshot.candidates
    ]
    rows = best_first(dataclasses.replace(snapshot, candidates=tied), 9.54)
    assert [row.id for row in rows[:2]] == [next_.id, best.id]


def test_the_time_of_a_text_is_told_only_from_a_mini_kd_on_this_device(db: Path) -> None:
    seen = live.read_candidate(db, 1)
    assert time_estimate.seconds_of_texts(1_000, seen.run, seen.candidate, 128) is None
    latency = dataclasses.replace(seen.candidate.latency, device=device_name())  # type: ignore[type-var]
    here = dataclasses.replace(seen.candidate, latency=latency)
    short = time_estimate.seconds_of_texts(1_000, seen.run, here, 32)
    long = time_estimate.seconds_of_texts(2_000, seen.run, here, 128)
    assert short is not None
    assert long is not None
    assert long[0] > 8 * short[0] > 8 * short[1] > 0
    fields = {"epochs": 1.0, "sequence_length": 32, "corpus": "", "sentences": 500}
    assert "**About" in distil_form.reading(fields, seen.run, here)
    for recipe, known in (("vectors", True), ("pd", False)):  # pd masks other words in each epoch
        words = distil_form.reading({**fields, "recipe": recipe}, seen.run, here)
        assert ("once the teacher has read them" in words) == known
    assert "About" not in distil_form.reading(fields, seen.run, seen.candidate)
    static = dataclasses.replace(here, architecture=static_student(384))
    assert "About" not in distil_form.reading(fields, seen.run, static)  # it has no FLOPs to tell it by


def of(seen: StudentView, **fields: Any) -> StudentView:
    spec = seen.student.spec.model_copy(update=fields)
    return dataclasses.replace(seen, student=dataclasses.replace(seen.student, spec=spec))


def judged_by_layers(run: Run) -> Run:
    objective = ObjectiveSpec(yardstick="layers", recipe="kdnas")
    return dataclasses.replace(run, spec=run.spec.model_copy(update={"objective": objective}))


def test_the_loss_of_the_mini_kd_is_drawn_only_where_it_compares(db: Path) -> None:
    seen = live_students.read_student(db, 1)
    assert student_loss.reference(seen) == ("mini-KD of candidate 1", seen.candidate.loss)
    assert "cut at 128 tokens here and at 48" in student_loss.meaning(seen)
    assert "On the same held-out texts as" in student_loss.meaning(of(seen, sequence_length=48))
    assert student_loss.reference(of(seen, recipe="tinybert")) is not None, "one yardstick for all recipes"
    other = of(seen, corpus="other.txt")
    by_layers = dataclasses.replace(seen, run=judged_by_layers(seen.run))
    for apart in (other, of(by_layers, recipe="tinybert"), of(by_layers, corpus="other.txt")):
        assert student_loss.reference(apart) is None
        assert "does not compare" in student_loss.meaning(apart)
    assert student_loss.reference(by_layers) is not None
    assert student_loss.reference(of(seen, task="packaged")) is None
    assert student_loss.reference(of(seen, recipe="kdnas", corpus="packaged")) is not None


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(0, 1.0), (5, math.inf), (10, 0.3)]])
def test_the_loss_is_drawn_whatever_it_is(points: list[tuple[int, float]]) -> None:
    figure = student_loss.agreement_figure(points, 100, "agreement, %", ("mini-KD", 0.4))
    figure.to_json()
    assert (figure.data[1].name, list(figure.data[1].y)) == ("mini-KD: 60.0 %", [60.0, 60.0])
    assert figure.layout.yaxis.title.text == "agreement, %"
    assert list(figure.data[1].x) == [0, 100]
    assert all(value is None or math.isfinite(value) for value in figure.data[0].y)


def test_the_agreement_over_steps_is_one_minus_the_loss_in_per_cent() -> None:
    figure = student_loss.agreement_figure([(0, 1.0), (5, math.inf), (10, 0.25)], 10, "agreement, %")
    assert list(figure.data[0].y) == [0.0, None, 75.0]


def test_a_score_has_its_spread_where_there_are_several_seeds() -> None:
    one = [Score("student", "sst2", "accuracy", 0, 0.8), Score("teacher", "sst2", "accuracy", 0, 0.9)]
    table = scores_section.scores_table(one)
    assert list(table.columns) == ["Task", "Metric", "Student", "Teacher", "Retained (%)"]
    assert (table["Student"][0], table["Teacher"][0]) == ("80.0", "90.0")
    two = [*one, Score("student", "sst2", "accuracy", 1, 0.9)]
    table = scores_section.scores_table(two)
    assert (table["Student"][0], table["Seeds ±"][0]) == ("85.0", pytest.approx(7.07, abs=0.01))


def test_a_score_whose_error_is_known_has_its_interval_and_a_verdict() -> None:
    def scored(subject: Scored, value: float) -> Score:
        return Score(subject, "sst2", "accuracy", 0, value, None, error=0.01, chance=0.5)

    (row,) = scores_section.scores_table([scored("student", 0.8), scored("teacher", 0.9)]).to_dict("records")
    assert (row["Student"], row["Teacher"]) == ("80.0 ± 2.0", "90.0 ± 2.0")
    assert (row["Above chance (%)"], row["Difference"]) == (pytest.approx(75.0), "more than noise")
    (row,) = scores_section.scores_table([scored("student", 0.89), scored("teacher", 0.9)]).to_dict("records")
    assert row["Difference"] == "within noise"


def test_metrics_read_as_people_write_them() -> None:
    assert scores_section.metric("f1") == "F1"
    assert scores_section.metric("accuracy, de") == "accuracy, de"
    assert (
        scores_section.metric("matthews, validation_matched") == "Matthews' correlation, validation_matched"
    )
    assert scores_section.metric("a_new_one") == "a new one"


def test_how_a_student_is_distilled_reads_in_short() -> None:
    run = ObjectiveSpec(recipe="kdnas")
    assert wording.distillation(DistilSpec(), run) == "KD-NAS · 3 epochs"
    assert wording.distillation(DistilSpec(), ObjectiveSpec()) == "Usual · 3 epochs"
    assert wording.distillation(DistilSpec(epochs=0.5, recipe="pkd"), run) == "Patient KD · 0.5 epochs"
    for_task = DistilSpec(task="hub:nyu-mll/glue:sst2", epochs=1)
    assert wording.distillation(for_task, run) == "for sst2 · 1 epoch with augmentation"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("packaged", "packaged"),
        ("/data/my task/", "my task"),
        ("hub:nyu-mll/glue:sst2:test", "sst2"),
        ("hub:owner/thing", "thing"),
        ("/", "/"),
    ],
)
def test_a_task_is_named_shortly(source: str, name: str) -> None:
    assert wording.task(source) == name


def test_scores_shares_and_sizes_have_their_units() -> None:
    assert (wording.points(0.9123), wording.percent(0.967), wording.points(None)) == ("91.2", "96.7 %", "–")
    assert (wording.size(999), wording.size(45_300_000)) == ("999 B", "45.3 MB")
