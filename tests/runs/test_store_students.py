"""Students and scorings in the store, and the behaviour that they share with runs."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Job, RunState, Worker
from kdnas_core.runs.records import LayerLoss, Run, Score, Scored, Scoring, Student
from kdnas_core.runs.store import Store, bytes_of, opened
from kdnas_core.spec import DistilSpec, ScoreSpec, quick_spec
from tests.filled_store import add_episode, begin_run, judge
from tests.sentences import is_one_sentence

VERSION_1 = Path(__file__).parent / "fixtures" / "version_1.db"
A, B = (Architecture(layers, 192, 768, 12) for layers in (2, 3))
DEAD = Worker(pid=1, host=Worker.this_process().host)  # it holds no lock
PLAIN = DistilSpec()
TASKS = ScoreSpec(tasks=["packaged", "hub:nyu-mll/glue:sst2"])

Make = Callable[[Store, Worker | None], Job]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(db: Path) -> Iterator[Store]:
    """A store with one finished run of two candidates, 1 and 2."""
    with opened(db) as store:
        run = begin_run(store)
        for candidate in add_episode(store, run, 1, [A, B]):
            judge(store, run, candidate)
        store.end_run(run, "finished")
        yield store


def raw(db: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(db)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def a_run(store: Store, worker: Worker | None = None) -> Job:
    return Job("runs", store.create_run(quick_spec(), worker))


def a_student(store: Store, worker: Worker | None = None) -> Job:
    return Job("students", store.create_student(1, PLAIN, worker=worker))


def a_scoring(store: Store, worker: Worker | None = None) -> Job:
    return Job("scorings", store.create_scoring(TASKS, candidate=1, worker=worker))


ALL: list[Make] = [a_run, a_student, a_scoring]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as refused:
        action()
    assert is_one_sentence(str(refused.value))
    return str(refused.value)


# --- names ------------------------------------------------------------------------------------------------


def test_a_plain_number_names_a_run_and_one_after_an_s_a_student() -> None:
    assert (Job.named("3"), Job.named("s12")) == (Job("runs", 3), Job("students", 12))


@pytest.mark.parametrize(
    "name", ["", "s", "x3", "3s", "s-1", "s 3", "S3", "s3.0", "٣", "s3\n", "9" * 19, "../1", "runs"]
)
def test_what_names_nothing_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(BadInput, match="names no run and no student"):
        Job.named(name)


# --- round trips ------------------------------------------------------------------------------------------


def test_a_new_student_reads_back_as_it_was_asked_for(store: Store) -> None:
    spec = DistilSpec(recipe="tinybert", epochs=0.5, corpus="naïve “模型”.txt", seed=2**32 - 1)
    before = time.time()
    row = store.student(store.create_student(2, spec, notes=["It is over the budget of its run."]))
    assert (row.id, row.name, row.run, row.candidate, row.parent) == (1, "s1", 1, 2, None)
    assert (row.spec, row.state, row.notes) == (spec, "queued", ("It is over the budget of its run.",))
    assert (row.step, row.steps, row.seconds, row.languages, row.activity) == (0, 0, 0.0, {}, "")
    unknown = [row.worker, row.request, row.loss, row.error, row.finished_at, row.heartbeat_at, row.loss_se]
    assert unknown == [None] * 7
    assert row.cut_from == ()
    assert row.seconds_left is None
    assert before <= row.created_at <= time.time()


def test_what_becomes_known_of_a_student_reads_back(store: Store) -> None:
    student = store.create_student(1, PLAIN)
    store.update_student(student, step=5, steps=10, loss=0.25, notes=["a", "b"], languages={"de": 0.5})
    row = store.student(student)
    assert (row.step, row.steps, row.loss, row.notes, row.languages) == (5, 10, 0.25, ("a", "b"), {"de": 0.5})
    store.update_student(student, loss_se=0.004, cut_from=[{"layer": 3, "heads": [1, 4]}])
    row = store.student(student)
    assert (row.loss_se, row.cut_from) == (0.004, (LayerSource(3, (1, 4)),))
    assert row.to_dict()["loss_se"] == 0.004
    losses = [LayerLoss(0, 1, 2, 0.75), LayerLoss(5, 0, 0, 0.5, "embedding"), LayerLoss(5, 1, 2, 0.5)]
    store.add_student_losses(student, losses[1:])
    store.add_student_losses(student, [LayerLoss(0, 1, 2, 0.9)])
    store.add_student_losses(student, losses[:1])  # a training that went on makes it again
    assert store.student_losses(student) == losses
    assert store.layer_losses(1) != losses


def test_the_time_left_is_told_by_the_pace_so_far(store: Store, db: Path) -> None:
    student = store.create_student(1, PLAIN, worker=Worker.this_process())
    assert store.student(student).seconds_left is None
    store.update_student(student, step=25, steps=100)
    raw(db, "UPDATE jobs SET seconds = 50 WHERE kind = 'students'")
    assert store.student(student).seconds_left == pytest.approx(150)
    store.end(Job("students", student), "paused")
    assert store.student(student).seconds_left is None


def test_students_are_listed_newest_first_and_by_their_run(store: Store) -> None:
    other = begin_run(store)
    (candidate,) = add_episode(store, other, 1, [A])
    for source in (1, candidate, 2):
        store.create_student(source, PLAIN)
    assert [row.name for row in store.students()] == ["s3", "s2", "s1"]
    assert [row.name for row in store.students(1)] == ["s3", "s1"]
    assert [row.name for row in store.students(other)] == ["s2"]
    assert store.students(77) == []


def test_a_student_made_from_another_knows_it_also_when_that_is_gone(store: Store) -> None:
    first = store.create_student(1, PLAIN)
    store.end(Job("students", first), "finished")
    second = store.create_student(1, DistilSpec(task="packaged"), parent=first)
    store.end(Job("students", second), "finished")
    assert store.student(second).parent == first
    store.delete(Job("students", first))
    assert store.student(second).parent == first
    assert store.create_student(1, PLAIN) == 3, "the id of a deleted student was given again"


def test_a_scoring_is_of_a_candidate_or_of_a_student(store: Store) -> None:
    student = store.create_student(1, PLAIN)
    first, second = (
        store.create_scoring(TASKS, candidate=1),
        store.create_scoring(TASKS, student=student),
    )
    row = store.scoring(first)
    assert (row.run, row.candidate, row.student, row.subject, row.spec) == (1, 1, None, "1", TASKS)
    assert (row.state, row.step, row.steps, row.error) == ("queued", 0, 0, None)
    assert store.scoring(second).subject == "s1"
    assert [row.id for row in store.scorings()] == [second, first]
    assert [row.id for row in store.scorings(candidate=1)] == [first]
    assert [row.id for row in store.scorings(student=student)] == [second]
    assert [row.id for row in store.scorings(1)] == [second, first]
    assert store.scorings(2) == []
    for number in (None, 1):
        with pytest.raises(ValueError, match="of a candidate or of a student"):
            store.create_scoring(TASKS, candidate=number, student=number)


def scores(subject: Scored = "student", task: str = "sst2", *values: float) -> list[Score]:
    return [Score(subject, task, "accuracy", seed, value, 5e-5) for seed, value in enumerate(values)]


def test_scores_read_back_in_the_order_in_which_they_came(store: Store) -> None:
    first, second = (store.create_scoring(TASKS, candidate=candidate) for candidate in (1, 2))
    given = [*scores("student", "sst2", 0.8, 0.9), *scores("teacher", "packaged", 0.7)]
    store.add_scores(first, given[:2])
    store.add_scores(first, given[2:])
    assert store.scores(first) == given
    assert store.scores(second) == []
    store.add_scores(second, [Score("student", "zero", "accuracy", 0, 0.5)])
    assert store.all_scores() == {first: given, second: [Score("student", "zero", "accuracy", 0, 0.5, None)]}


def test_a_score_that_is_found_again_takes_the_place_of_the_first(store: Store) -> None:
    scoring = store.create_scoring(TASKS, candidate=1)
    store.add_scores(scoring, scores("student", "sst2", 0.8, 0.9))
    store.add_scores(scoring, scores("student", "sst2", 0.7))
    assert sorted(score.value for score in store.scores(scoring)) == [0.7, 0.9]


# --- what a finished scoring changes ----------------------------------------------------------------------


def finished(
    store: Store, *given: Score, spec: ScoreSpec = TASKS, candidate: int = 1, student: int | None = None
) -> int:
    scored = candidate if student is None else None
    scoring = store.create_scoring(spec, candidate=scored, student=student)
    store.add_scores(scoring, given)
    store.end(Job("scorings", scoring), "finished")
    return scoring


def test_the_figures_of_a_finished_scoring_are_its_candidates(store: Store) -> None:
    finished(store, *scores("student", "sst2", 0.8, 0.9), *scores("teacher", "sst2", 1.0))
    assert store.candidate(1).scores == pytest.approx({"sst2": 0.85})
    finished(store, *scores("student", "rte", 0.6), spec=ScoreSpec(tasks=["rte"]))
    assert store.candidate(1).scores == pytest.approx({"sst2": 0.85, "rte": 0.6})
    finished(store, *scores("student", "sst2", 0.7), spec=ScoreSpec(tasks=["sst2"], seeds=1))
    assert store.candidate(1).scores == pytest.approx({"sst2": 0.7, "rte": 0.6})
    assert store.candidate(2).scores == {}


def test_a_students_scores_and_those_on_the_way_are_not_its_candidates(store: Store) -> None:
    student = store.create_student(1, PLAIN)
    finished(store, *scores("student", "sst2", 0.8), student=student)
    half = store.create_scoring(TASKS, candidate=1)
    store.add_scores(half, scores("student", "sst2", 0.8))
    store.end(Job("scorings", half), "paused")
    assert store.candidate(1).scores == {}


def test_a_finished_scoring_takes_the_place_of_earlier_ones_that_asked_the_same(store: Store) -> None:
    student = store.create_student(1, PLAIN)
    cut_short = store.create_scoring(TASKS, candidate=1)
    store.end(Job("scorings", cut_short), "interrupted")
    others = [
        finished(store, spec=ScoreSpec(tasks=["packaged"])),
        finished(store, student=student),
        finished(store, candidate=2),
        store.create_scoring(TASKS, candidate=1),  # queued, its turn is to come
    ]
    last = finished(store, *scores("student", "sst2", 0.8))
    assert {row.id for row in store.scorings()} == {*others, last}


# --- what can be asked of each kind -----------------------------------------------------------------------


@pytest.mark.parametrize("make", ALL)
def test_every_kind_is_served_paused_resumed_and_ended_alike(store: Store, make: Make) -> None:
    job = make(store, None)
    assert store.is_waiting()
    claimed = store.claim(Worker.this_process())
    assert claimed is not None
    assert (claimed.job, claimed.state) == (job, "running")
    assert not store.is_waiting()
    assert store.claim(Worker.this_process()) is None
    store.set_activity(job, "loading the teacher")
    assert store.work(job).activity == "loading the teacher"
    assert store.ask(job, "pause") == "running"
    assert store.work(job).request == "pause"
    store.end(job, "paused")
    row = store.work(job)
    assert (row.state, row.request, row.activity) == ("paused", None, "")
    assert row.finished_at is not None
    assert store.resume(job) == "queued"
    assert store.work(job).finished_at is None
    assert store.ask(job, "stop") == "stopped"
    assert store.resume(job) == "queued"
    store.claim(Worker.this_process())
    store.end(job, "failed", "The teacher is gone.")
    assert store.work(job).error == "The teacher is gone."
    assert store.resume(job) == "queued"
    assert store.work(job).error is None
    store.claim(Worker.this_process())
    store.end(job, "finished")
    for refused in (lambda: store.resume(job), lambda: store.ask(job, "pause")):
        assert refusal(refused).startswith(job.title)
    store.delete(job)
    assert "There is no" in refusal(lambda: store.work(job))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("request_", ["pause", "stop"])
def test_a_killed_worker_leaves_every_kind_interrupted(
    store: Store, make: Make, request_: Literal["pause", "stop"]
) -> None:
    job = make(store, DEAD)
    assert store.work(job).state == "interrupted"
    expected: RunState = "paused" if request_ == "pause" else "stopped"
    assert store.ask(job, request_) == expected
    assert store.resume(job) == "queued"
    assert store.claim(Worker.this_process()) is not None


@pytest.mark.parametrize("make", ALL)
def test_a_beat_counts_what_was_worked_for_every_kind(store: Store, make: Make) -> None:
    job = make(store, Worker.this_process())
    store.heartbeat(job, 10.0)
    assert store.work(job).seconds == 10
    rows: list[Run | Student | Scoring] = [*store.runs(), *store.students(), *store.scorings()]
    assert [row.job for row in rows if row.seconds > 1] == [job]


def test_what_was_queued_first_is_served_first_whatever_its_kind(store: Store, db: Path) -> None:
    queued = [make(store, None) for make in (a_scoring, a_run, a_student, a_run, a_scoring)]
    for number, job in enumerate(queued):
        raw(db, "UPDATE jobs SET created_at = ? WHERE (kind, subject) = (?, ?)", number, job.kind, job.id)
    claimed = [store.claim(Worker.this_process()) for _ in range(6)]
    assert [row and row.job for row in claimed] == [*queued, None]
    assert [type(row) for row in claimed[:3]] == [Scoring, Run, Student]


def test_a_claim_of_one_kind_leaves_the_others(store: Store) -> None:
    student, run = a_student(store), a_run(store)
    claimed = store.claim_run(Worker.this_process())
    assert claimed is not None
    assert claimed.job == run
    assert store.work(student).state == "queued"


def test_going_on_keeps_what_a_student_and_a_scoring_have(store: Store) -> None:
    student = store.create_student(1, PLAIN, worker=DEAD)
    store.update_student(student, step=500, steps=1000, notes=["a"])
    store.add_student_losses(student, [LayerLoss(500, 1, 1, 0.5)])
    scoring = store.create_scoring(TASKS, candidate=1, worker=DEAD)
    store.add_scores(scoring, scores("student", "sst2", 0.5))
    for job in (Job("students", student), Job("scorings", scoring)):
        store.resume(job)
        store.claim(Worker.this_process())
    row = store.student(student)
    assert (row.step, row.steps, row.notes) == (500, 1000, ("a",))
    assert len(store.student_losses(student)) == len(store.scores(scoring)) == 1


def test_what_does_not_exist_is_said_in_a_sentence(store: Store) -> None:
    for look in (
        lambda: store.student(99),
        lambda: store.scoring(99),
        lambda: store.create_student(99, PLAIN),
        lambda: store.create_student(1, PLAIN, parent=99),
        lambda: store.create_scoring(TASKS, candidate=99),
        lambda: store.create_scoring(TASKS, student=99),
        lambda: store.delete(Job("students", 99)),
        lambda: store.resume(Job("students", 99)),
        lambda: store.ask(Job("students", 99), "stop"),
    ):
        assert "There is no" in refusal(look)
    assert (store.students(), store.scorings()) == ([], [])


# --- deleting ---------------------------------------------------------------------------------------------


def written(store: Store, student: int) -> Path:
    folder = store.student_files(1, student)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def test_deleting_a_student_takes_its_losses_scorings_and_files_and_no_others(store: Store, db: Path) -> None:
    gone, kept = (store.create_student(1, PLAIN) for _ in range(2))
    for student in (gone, kept):
        written(store, student)
        store.add_student_losses(student, [LayerLoss(0, 1, 1, 0.5)])
        finished(store, *scores("student", "sst2", 0.5), student=student)
    store.delete(Job("students", gone))
    assert [row.id for row in store.students()] == [kept]
    assert not store.student_files(1, gone).exists()
    assert store.student_files(1, kept).is_dir()
    assert (store.files(1, 1) / "config.json").is_file()
    assert raw(db, "SELECT student FROM student_losses") == [(kept,)]
    (scoring,) = store.scorings()
    assert scoring.student == kept
    assert raw(db, "SELECT DISTINCT scoring FROM scores") == [(scoring.id,)]


def test_deleting_a_run_takes_its_students_scorings_and_all_files(store: Store, db: Path) -> None:
    student = store.create_student(1, PLAIN)
    written(store, student)
    store.add_student_losses(student, [LayerLoss(0, 1, 1, 0.5)])
    finished(store, *scores("student", "sst2", 0.5))
    finished(store, *scores("student", "sst2", 0.5), student=student)
    store.delete_run(1)
    assert (store.runs(), store.students(), store.scorings(), store.all_scores()) == ([], [], [], {})
    assert raw(db, "SELECT count(*) FROM student_losses") == [(0,)]
    assert not store.files(1).exists()


@pytest.mark.parametrize("make", [a_student, a_scoring])
def test_a_run_is_not_deleted_while_something_of_it_runs(store: Store, make: Make) -> None:
    job = make(store, Worker.this_process())
    sentence = refusal(lambda: store.delete_run(1))
    assert sentence.startswith(f"Run 1 is needed by {job.title[0].lower()}{job.title[1:]}, which is running")
    assert refusal(lambda: store.delete(job)).startswith(f"{job.title} is running")
    assert store.work(job).state == "running"
    store.end(job, "stopped")
    store.delete_run(1)
    assert store.runs() == []


def test_a_run_whose_students_worker_died_can_be_deleted(store: Store) -> None:
    a_student(store, DEAD)
    a_scoring(store, None)
    store.delete_run(1)
    assert store.runs() == []


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("what", ["student", "scoring"])
def test_a_student_that_something_is_to_begin_with_is_not_deleted(
    store: Store, state: str, what: str
) -> None:
    parent = store.create_student(1, PLAIN)
    store.end(Job("students", parent), "finished")
    worker = Worker.this_process() if state == "running" else None
    if what == "student":
        job = Job("students", store.create_student(1, DistilSpec(task="x"), parent=parent, worker=worker))
    else:
        job = Job("scorings", store.create_scoring(TASKS, student=parent, worker=worker))
    assert f"needed by {what}" in refusal(lambda: store.delete(Job("students", parent)))
    store.end(job, "stopped")
    store.delete(Job("students", parent))


def test_the_bytes_of_a_folder_are_those_of_all_its_files(store: Store, tmp_path: Path) -> None:
    folder = written(store, 7)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "config.json").write_bytes(b"x" * 24)
    assert bytes_of(folder) == 1024
    assert bytes_of(store.files(1)) > 1024
    assert bytes_of(tmp_path / "nowhere") == 0


def test_candidates_that_were_scored_or_begun_with_are_in_use(store: Store) -> None:
    assert store.candidates_in_use(1) == set()
    first = store.create_student(1, PLAIN)
    store.create_student(1, DistilSpec(task="packaged"), parent=first)
    store.create_scoring(TASKS, student=first)
    assert store.candidates_in_use(1) == set(), "nothing of these reads the candidate's own weights"
    store.create_student(1, DistilSpec(task="packaged"))
    store.create_scoring(TASKS, candidate=2)
    assert store.candidates_in_use(1) == {1, 2}


# --- earlier versions -------------------------------------------------------------------------------------


def test_a_store_of_version_1_has_no_students_and_gets_them(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db, read_only=True) as store:
        assert (store.students(), store.scorings(), store.all_scores()) == ([], [], {})
        assert "There is no student s1" in refusal(lambda: store.student(1))
    with opened(db) as store:
        assert store.student(store.create_student(1, PLAIN)).candidate == 1
        store.delete_run(1)
        assert store.students() == []
