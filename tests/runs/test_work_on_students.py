"""Distillations and scorings as the worker serves them; the training and scoring are replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput, Failure
from kdnas_core.evaluation.scoring import TaskScore
from kdnas_core.runs import names, signals, student_journals, worker
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import LayerLoss, Score, Scoring, Student
from kdnas_core.runs.score_table import ZERO_SHOT
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec, RunSpec, ScoreSpec
from kdnas_core.students import scores
from kdnas_core.students.full import FullListener, FullResult
from kdnas_core.students.scores import ScoreListener
from tests.filled_store import TEACHER, add_episode, begin_run, judge
from tests.sentences import is_one_sentence
from tests.tiny_runs import no_export, wait_for

SHAPES = [Architecture(2, 192, 384, 12), Architecture(3, 192, 384, 12), TEACHER]  # the last is over budget
STEPS = 6
TASKS = ScoreSpec(tasks=["packaged"])
CUT = (LayerSource(3, (1, 4)), LayerSource(6, (2,)))

Act = Callable[[FullListener], None]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with one finished run; candidate 1 has weights, 2 has none, 3 is over budget."""
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.02)
    with opened(tmp_path / "runs.db") as store:
        run = begin_run(store)
        for candidate in add_episode(store, run, 1, SHAPES):
            judge(store, run, candidate)
        store.update_candidate(2, weights=0)
        (store.files(run, 1) / "model.safetensors").write_bytes(b"weights of 1")
        store.end_run(run, "finished")
        yield store


class Full:
    """Replaces full distillation: saves its step in a file, and runs an action at each step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.taken: list[int] = []
        self.starts: list[Path | None] = []
        self.at: Callable[[int], None] = lambda step: None
        patch.setattr(student_journals, "distil_fully", self.fully)
        patch.setattr(student_journals, "distil_for_task", self.for_task)

    def fully(
        self,
        spec: RunSpec,
        how: DistilSpec,
        architecture: Architecture,
        folder: Path,
        listener: FullListener,
        start: Path | None,
    ) -> FullResult:
        self.calls.append((spec, how, architecture, folder))
        self.starts.append(start)
        return self._train(folder, listener)

    def for_task(
        self, spec: RunSpec, how: DistilSpec, start: Path, folder: Path, listener: FullListener
    ) -> FullResult:
        self.calls.append((spec, how, start, folder))
        return self._train(folder, listener)

    def _train(self, folder: Path, listener: FullListener) -> FullResult:
        kept = folder / "checkpoint.safetensors"
        listener.say("distilling on the full corpus")
        listener.begun(STEPS)
        listener.noted(["Attention loss skipped."])
        for step in range(int(kept.read_text()) + 1 if kept.exists() else 1, STEPS + 1):
            self.taken.append(step)
            try:
                self.at(step)
                listener.step(step)
            except Exception:
                kept.write_text(str(step))
                raise
            if step % 2 == 0:
                listener.held_out(step, {"hidden": {(1, 2): 1 / step}})
        kept.unlink(missing_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights of a student")
        return FullResult(0.25, {"de": 0.5}, 0.004, CUT)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


def claimed_student(store: Store, name: str = "1", **fields: Any) -> Student:
    source = names.source_named(store, name)
    return store.student(names.new_student(store, source, DistilSpec(**fields), Worker.this_process()))


def claimed_scoring(store: Store, name: str = "1") -> Scoring:
    source = names.source_named(store, name)
    return store.scoring(names.new_scoring(store, source, TASKS, Worker.this_process()))


def claim(store: Store) -> Any:
    return store.claim(Worker.this_process())


# --- distilling -------------------------------------------------------------------------------------------


def test_a_distilled_student_has_all_that_became_known_of_it(store: Store, full: Full) -> None:
    told: list[tuple[str, int, int]] = []
    student = claimed_student(store, epochs=0.5)
    assert worker.distil(store, student, lambda *progress: told.append(progress)) == "finished"
    row = store.student(student.id)
    assert (row.state, row.loss, row.languages, row.step, row.steps) == (
        "finished",
        0.25,
        {"de": 0.5},
        STEPS,
        STEPS,
    )
    assert (row.loss_se, row.cut_from) == (0.004, CUT)
    assert (row.notes, row.activity, row.error) == (("Attention loss skipped.",), "", None)
    assert row.finished_at is not None
    losses = [LayerLoss(step, 1, 2, 1 / step) for step in (2, 4, 6)]
    assert store.student_losses(student.id) == losses
    folder = store.student_files(1, student.id)
    assert full.calls == [(store.run(1).spec, DistilSpec(epochs=0.5), SHAPES[0], folder)]
    assert told[0] == ("distilling on the full corpus", 0, 0)
    assert [step for _, step, of in told if of == STEPS] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("request_", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_running_distillation_obeys_and_goes_on_from_where_it_was(
    store: Store, full: Full, request_: Any, state: str
) -> None:
    student = claimed_student(store)

    def ask(step: int) -> None:
        if step == 3:
            store.ask(student.job, request_)
            time.sleep(0.2)  # several beats

    full.at = ask
    assert worker.distil(store, student) == state
    row = store.student(student.id)
    assert (row.state, row.request, row.activity, row.loss) == (state, None, "", None)
    assert full.taken == [1, 2, 3]
    assert row.step == 3, "what was kept is not what is shown"
    full.at = lambda step: None
    assert store.resume(student.job) == "queued"
    assert worker.distil(store, claim(store)) == "finished"
    assert full.taken == [1, 2, 3, 4, 5, 6]
    assert store.student(student.id).notes == ("Attention loss skipped.",), "a note was said twice"
    assert [loss.step for loss in store.student_losses(student.id)] == [2, 4, 6]


@pytest.fixture
def in_the_foreground() -> Iterator[None]:
    """Restores Ctrl-C, which is ignored if a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_kill_ends_a_distillation_at_its_next_step_and_keeps_it(
    store: Store, full: Full, number: signal.Signals
) -> None:
    student = claimed_student(store)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    full.at = lambda step: os.kill(os.getpid(), number) if step == 4 else None
    with pytest.raises(KeyboardInterrupt):
        worker.distil(store, student)
    assert store.student(student.id).state == "interrupted"
    assert (store.student_files(1, student.id) / "checkpoint.safetensors").read_text() == "4"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_kill_that_comes_with_the_last_step_ends_the_process_and_not_the_student(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_steps(*arguments: Any) -> FullResult:
        os.kill(os.getpid(), signal.SIGTERM)
        return FullResult(0.25, {})

    monkeypatch.setattr(student_journals, "distil_fully", no_more_steps)
    student = claimed_student(store)
    with pytest.raises(KeyboardInterrupt):
        worker.distil(store, student)
    assert store.student(student.id).state == "finished"


def test_a_second_signal_does_not_wait(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), signals.put_off() as is_asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_asked()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it waited")


def test_work_that_does_not_look_is_interrupted_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE_S", 0.05)
    with pytest.raises(KeyboardInterrupt), signals.put_off():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(500):
            time.sleep(0.01)


def test_in_another_thread_nothing_is_put_off() -> None:
    seen: list[bool] = []

    def look() -> None:
        with signals.put_off() as is_asked:
            seen.append(is_asked())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BadInput("The corpus is gone."), "The corpus is gone."),
        (Failure("The check took too long."), "The check took too long."),
        (OSError("no space left on device"), "OSError: no space left on device"),
    ],
)
def test_a_distillation_that_fails_says_why_and_can_be_resumed(
    store: Store, full: Full, error: Exception, says: str
) -> None:
    def fail(step: int) -> None:
        if step == 5:
            raise error

    full.at = fail
    student = claimed_student(store)
    assert worker.distil(store, student) == "failed"
    assert (store.student(student.id).state, store.student(student.id).error) == ("failed", says)
    full.at = lambda step: None
    store.resume(student.job)
    assert worker.distil(store, claim(store)) == "finished"
    assert full.taken == [1, 2, 3, 4, 5, 6]


def test_a_student_that_was_killed_after_its_last_word_is_not_distilled_again(
    store: Store, full: Full
) -> None:
    student = claimed_student(store)
    student_journals.distil(store, student, lambda: None, lambda *progress: None)  # and then the kill
    store.end(student.job, "interrupted")
    store.resume(student.job)
    assert worker.distil(store, claim(store)) == "finished"
    assert len(full.calls) == 1
    assert store.student(student.id).loss == 0.25


def test_a_task_specific_student_begins_with_the_weights_that_were_named(store: Store, full: Full) -> None:
    general = claimed_student(store)
    worker.distil(store, general)
    for name, start in (("1", store.files(1, 1)), ("s1", store.student_files(1, 1))):
        student = claimed_student(store, name, task="packaged")
        assert (student.candidate, student.parent) == (1, 1 if name == "s1" else None)
        assert worker.distil(store, student) == "finished"
        assert full.calls[-1][2:] == (start, store.student_files(1, student.id))


@pytest.mark.usefixtures("scoring_stands_in")
def test_a_student_goes_on_with_other_text_and_is_scored_on_what_the_one_before_was(
    store: Store, full: Full
) -> None:
    before = claimed_student(store)
    assert worker.distil(store, before) == "finished"
    worker.score(store, claimed_scoring(store, "s1"))
    student = claimed_student(store, "s1", corpus="other.txt")
    assert (student.candidate, student.parent) == (1, before.id)
    assert worker.distil(store, student) == "finished"
    assert full.starts == [None, store.student_files(1, before.id)]
    [queued] = store.scorings(student=student.id)
    assert (queued.state, queued.spec) == ("queued", TASKS)
    assert store.scorings(student=before.id)[0].state == "finished"
    # one that begins with nobody's weights has nothing to compare with
    other = claimed_student(store)
    worker.distil(store, other)
    assert store.scorings(student=other.id) == []


def test_a_student_goes_on_as_the_one_before_was_distilled_but_for_what_is_given(
    store: Store, full: Full
) -> None:
    before = claimed_student(store, recipe="kdnas", sequence_length=32, batch_size=8, epochs=5)
    worker.distil(store, before)
    student = claimed_student(store, "s1", corpus="other.txt", batch_size=16)
    how = student.spec
    assert (how.recipe, how.sequence_length, how.batch_size) == ("kdnas", 32, 16)
    assert how.epochs == DistilSpec().epochs


def test_a_student_that_went_on_resumes_though_the_one_before_is_gone(store: Store, full: Full) -> None:
    before = claimed_student(store)
    worker.distil(store, before)
    student = claimed_student(store, "s1", corpus="other.txt")

    def fail(step: int) -> None:
        if step == 3:
            raise RuntimeError("the machine is tired")

    full.at = fail
    assert worker.distil(store, student) == "failed"
    full.at = lambda step: None
    store.delete(before.job)
    store.resume(student.job)
    assert worker.distil(store, claim(store)) == "finished"
    assert full.starts == [None, store.student_files(1, before.id), None]


def test_a_student_whose_beginning_is_gone_fails_with_a_sentence(store: Store, full: Full) -> None:
    student = claimed_student(store, task="packaged")
    (store.files(1, 1) / "model.safetensors").unlink()
    assert worker.distil(store, student) == "failed"
    error = store.student(student.id).error
    assert error is not None
    assert is_one_sentence(error)
    assert "are gone" in error
    assert full.calls == []


def test_progress_is_written_now_and_then_and_at_the_end(
    store: Store, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, Any]] = []
    update = Store.update_student

    def spy(store: Store, student: int, **fields: Any) -> None:
        written.append(fields)
        update(store, student, **fields)

    monkeypatch.setattr(Store, "update_student", spy)
    monkeypatch.setattr(student_journals, "STEP_SECONDS", 60)
    worker.distil(store, claimed_student(store))
    assert [fields["step"] for fields in written if "step" in fields] == [1, STEPS]


def test_while_another_has_the_device_the_student_says_so_and_then_what_it_does(store: Store) -> None:
    student = claimed_student(store)
    told = student_journals.Progress(
        store, student.job, store.update_student, lambda: None, lambda *progress: None
    )
    told.say("distilling")
    told.waiting()
    told.waiting()
    assert store.student(student.id).activity == student_journals.WAITING
    told.step(1, 10)
    assert store.student(student.id).activity == "distilling"


# --- scoring ----------------------------------------------------------------------------------------------

FOUND = [
    ("teacher", TaskScore("packaged", ({"accuracy": 0.8}, {"accuracy": 1.0}), 5e-5)),
    ("student", TaskScore("packaged", ({"accuracy": 0.6}, {"accuracy": 0.75}), 1.5e-4)),
    ("student", TaskScore(f"sts{ZERO_SHOT}", ({"spearman": 0.5},))),
]


def score_models(spec: RunSpec, how: ScoreSpec, student: Path, listener: ScoreListener) -> None:
    """Replaces scoring."""
    listener.say("teacher: packaged: fine-tuning, seed 0")
    listener.waiting()
    for subject, found in FOUND:
        listener.step(1, 2)
        listener.step(2, 2)
        listener.scored(subject, found)  # type: ignore[arg-type]


@pytest.fixture
def scoring_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_journals, "score_models", score_models)


@pytest.mark.usefixtures("scoring_stands_in")
def test_a_scoring_writes_every_seed_and_the_candidates_figures(store: Store) -> None:
    scoring = claimed_scoring(store)
    assert worker.score(store, scoring) == "finished"
    assert store.scores(scoring.id) == [
        Score("teacher", "packaged", "accuracy", 0, 0.8, 5e-5),
        Score("teacher", "packaged", "accuracy", 1, 1.0, 5e-5),
        Score("student", "packaged", "accuracy", 0, 0.6, 1.5e-4),
        Score("student", "packaged", "accuracy", 1, 0.75, 1.5e-4),
        Score("student", f"sts{ZERO_SHOT}", "spearman", 0, 0.5, None),
    ]
    assert store.candidate(1).scores == pytest.approx({"packaged": 0.675, f"sts{ZERO_SHOT}": 0.5})
    assert store.scoring(scoring.id).state == "finished"


def test_a_scoring_is_paused_with_what_it_has_and_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = claimed_scoring(store)

    def asked_on_the_way(spec: RunSpec, how: ScoreSpec, student: Path, listener: ScoreListener) -> None:
        listener.scored("teacher", FOUND[0][1])
        store.ask(scoring.job, "pause")
        wait_for(lambda: listener.step(1, 2), seconds=5)

    monkeypatch.setattr(student_journals, "score_models", asked_on_the_way)
    assert worker.score(store, scoring) == "paused"
    assert len(store.scores(scoring.id)) == 2
    assert store.candidate(1).scores == {}
    monkeypatch.setattr(student_journals, "score_models", score_models)
    store.resume(scoring.job)
    assert worker.score(store, claim(store)) == "finished"
    assert len(store.scores(scoring.id)) == 5


def test_a_scoring_is_of_the_weights_that_were_named(
    store: Store, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.distil(store, claimed_student(store))
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(student_journals, "score_models", lambda *given: asked.append(given[:3]))
    for name in ("1", "s1"):
        assert worker.score(store, claimed_scoring(store, name)) == "finished"
    spec = store.run(1).spec
    assert asked == [(spec, TASKS, store.files(1, 1)), (spec, TASKS, store.student_files(1, 1))]


def test_the_name_of_a_task_without_training_is_the_one_that_scoring_gives() -> None:
    assert ZERO_SHOT == scores.ZERO_SHOT


# --- serving ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_signals", "scoring_stands_in")
def test_a_worker_serves_students_and_scorings_in_the_order_of_the_queue(store: Store, full: Full) -> None:
    student = names.new_student(store, names.source_named(store, "1"), DistilSpec())
    scoring = names.new_scoring(store, names.source_named(store, "1"), TASKS)
    last = names.new_student(store, names.source_named(store, "2"), DistilSpec())
    worker.serve(store.path, no_export, until_idle=True)
    rows = [store.student(student), store.scoring(scoring), store.student(last)]
    assert [row.state for row in rows] == ["finished"] * 3
    ended = [row.finished_at or 0 for row in rows]
    assert ended == sorted(ended)


# --- what can be made from what ---------------------------------------------------------------------------


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as refused:
        action()
    assert is_one_sentence(str(refused.value))
    return str(refused.value)


def test_a_student_made_against_the_odds_says_so(store: Store) -> None:
    (failed,) = add_episode(store, 1, 2, [Architecture(4, 192, 384, 12)])
    store.update_candidate(failed, state="failed", error="the loss was nan at step 3")
    notes = [claimed_student(store, name).notes for name in ("1", "2", "3", str(failed))]
    assert notes == [
        (),
        (),
        ("Candidate 3 is over the latency budget of its run.",),
        (f"Candidate {failed} failed in its run: the loss was nan at step 3.",),
    ]


def test_what_cannot_be_distilled_or_scored_is_refused_and_nothing_is_written(store: Store) -> None:
    (proposed,) = add_episode(store, 1, 2, [Architecture(4, 192, 384, 12)])
    unfinished = claimed_student(store)
    store.end(unfinished.job, "paused")

    def distil(name: str, **fields: Any) -> str:
        source = names.source_named(store, name)
        return refusal(lambda: names.new_student(store, source, DistilSpec(**fields)))

    def score(name: str) -> str:
        source = names.source_named(store, name)
        return refusal(lambda: names.new_scoring(store, source, TASKS))

    assert "is not judged yet" in distil(str(proposed))
    assert "is distilled already" in distil("s1")
    assert "is paused and has no weights yet" in distil("s1", corpus="other.txt")
    assert "is paused and has no weights yet" in distil("s1", task="packaged")
    for sentence in (distil("2", task="packaged"), score("2"), distil("3", task="packaged"), score("3")):
        assert "distil it in full first" in sentence
    assert "is paused and has no weights yet" in score("s1")
    for name in ("99", "s99"):
        assert "There is no" in refusal(lambda name=name: names.source_named(store, name))  # type: ignore[misc]
    assert "names no candidate and no student" in refusal(lambda: names.source_named(store, "x3"))
    (store.files(1, 1) / "model.safetensors").unlink()
    assert "are gone" in score("1")
    assert [row.id for row in store.students()] == [unfinished.id]
    assert store.scorings() == []


def test_a_job_that_was_deleted_while_it_was_asked_for_is_missed(store: Store) -> None:
    assert "There is no student s5" in refusal(lambda: store.work(Job("students", 5)))
