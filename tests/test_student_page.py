"""The page of a student, and the parts of other pages that make students and score them."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.ui import places
from kdnas_core.runs.records import Scoring, Student
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, ScoreSpec
from tests.filled_store import add_students, fill
from tests.served import Served, served
from tests.test_pages import buttons, charts, choice, db, shown, words

__all__ = ["db", "served"]  # the fixtures

GENERAL, TASK, RUNNING, PAUSED, FAILED = range(1, 6)  # students of a filled store


def press(app: AppTest, label: str) -> AppTest:
    [button] = [button for button in app.button if button.label == label]
    return button.click().run()


def students(db: Path) -> list[Student]:
    with opened(db, read_only=True) as store:
        return store.students()


def scorings(db: Path) -> list[Scoring]:
    with opened(db, read_only=True) as store:
        return store.scorings()


def first_of(db: Path, state: str) -> int:
    """The first candidate of a state."""
    with opened(db, read_only=True) as store:
        return next(row.id for row in store.candidates(1) if row.state == state)


def field(app: AppTest, label: str) -> object:
    [found] = [each for each in [*app.text_input, *app.text_area] if each.label == label]
    return found


def test_a_student_shows_its_agreement_beside_that_of_the_mini_kd_and_its_layers(db: Path) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=GENERAL)
    assert "Student s1" in words(app)
    assert (app.metric[0].label, app.metric[0].value) == ("Agreement", "80.0 %")
    assert app.metric[0].delta == "52.0 % after mini-KD"
    [figure] = [figure for alt, figure in charts(app).items() if alt.startswith("Agreement on held-out")]
    names = [line["name"] for line in figure["data"]]
    assert names == ["full distillation", "mini-KD of candidate 1: 52.0 %"]
    assert "Its embeddings were trained for 600 words" in words(app)
    assert "5.0 MB on the disk" in words(app)
    layers = shown(places.STUDENT, student=GENERAL, tab="Layers")
    assert "Layer mapping, student ← teacher" in words(layers)
    assert any("7 languages" in alt for alt in charts(layers))
    assert choice(layers, "Beside").options[0] == "its mini-KD"
    of_task = shown(places.STUDENT, student=TASK, tab="Layers")  # its errors are on other texts
    assert "Beside" not in [box.label for box in of_task.selectbox]


def test_a_model_says_what_is_done_for_it_at_this_moment(db: Path) -> None:
    fill(db, students=True)
    [running] = [student for student in students(db) if student.id == RUNNING]
    told = words(shown(places.CANDIDATE, candidate=running.candidate))
    assert "**Student s3**" in told
    assert "distilling on the full corpus · 1,500 of 6,000 · see Distil" in told
    assert "**Student s4**" not in told  # paused
    told = words(shown(places.STUDENT, student=TASK))
    assert "**Scoring 3**" in told
    assert "**Student s3**" not in told


def test_a_running_student_shows_its_step_the_time_left_and_its_agreement_so_far(db: Path) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=RUNNING)
    assert "**Now: distilling on the full corpus**" in words(app)
    assert app.metric[0].label == "Agreement so far"
    assert "the two compare roughly" in words(app)
    assert app.get("progress")[0].proto.text == "Step 1,500 of 6,000 · about 30 min left"


@pytest.mark.parametrize(
    ("student", "offered"),
    [
        (GENERAL, {"Delete student s1 …", "Export", "Score", "Distil for the task", "Go on"}),
        (TASK, {"Delete student s2 …", "Export", "Score", "Pause", "Stop", "Delete scoring 3 …"}),
        (RUNNING, {"Pause", "Stop", "Delete student s3 …"}),
        (PAUSED, {"Resume", "Stop", "Delete student s4 …"}),
        (FAILED, {"Resume", "Delete student s5 …"}),
    ],
)
def test_a_student_offers_the_buttons_of_its_state(db: Path, student: int, offered: set[str]) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=student)
    assert offered <= buttons(app)
    others = {"Pause", "Stop", "Resume", "Export", "Score", "Distil for the task", "Go on"}
    assert not (others - offered) & buttons(app)


def test_a_failed_student_shows_its_sentence_and_a_task_specific_one_its_origin(db: Path) -> None:
    fill(db, students=True)
    assert r"Diverged\: the loss was nan" in words(shown(places.STUDENT, student=FAILED))
    app = shown(places.STUDENT, student=TASK)
    assert app.metric[0].label == "Loss of predictions"
    assert "for packaged" in words(app)
    assert any("Made from student s1" in link.proto.label for link in app.get("page_link"))


@pytest.mark.slow
def test_pause_stop_and_resume_of_a_student_reach_the_store(db: Path, served: Served) -> None:
    fill(db, students=True)
    press(shown(places.STUDENT, student=RUNNING), "Pause")
    press(shown(places.STUDENT, student=PAUSED), "Stop")
    press(shown(places.STUDENT, student=FAILED), "Resume")
    states = {student.id: (student.state, student.request) for student in students(db)}
    assert states[RUNNING] == ("running", "pause")
    assert states[PAUSED] == ("stopped", None)
    assert states[FAILED] == ("queued", None)
    assert served.stores == [db]


def test_a_student_is_deleted_after_a_question_and_leaves_to_its_candidate(db: Path) -> None:
    fill(db, students=True)
    app = press(shown(places.STUDENT, student=PAUSED), "Delete student s4 …")
    assert PAUSED in [student.id for student in students(db)]
    assert "deleted for good" in words(app)
    app = press(press(app, "Keep it"), "Delete student s4 …")
    app = press(app, "Delete for good")
    assert PAUSED not in [student.id for student in students(db)]
    assert "Candidate 2" in words(app)


def test_a_scoring_is_deleted_after_a_question(db: Path) -> None:
    fill(db, students=True)
    app = press(shown(places.CANDIDATE, candidate=1), "Delete scoring 1 …")
    assert 1 in [scoring.id for scoring in scorings(db)]
    app = press(app, "Delete for good")
    assert 1 not in [scoring.id for scoring in scorings(db)]
    assert "Scoring 1" not in words(app)


def test_a_press_queues_a_full_distillation_as_it_was_chosen(db: Path, served: Served) -> None:
    fill(db)
    candidate = first_of(db, "done")
    app = shown(places.CANDIDATE, candidate=candidate)
    choice(app, "Epochs").set_value(2.0)
    choice(app, "Recipe").set_value("tinybert")
    choice(app, "Tokens a text").set_value(64)
    choice(app, "Pairs of segments").set_value(0.25)
    app = press(app.run(), "Distil in full")
    [student] = students(db)
    assert (student.candidate, student.parent, student.state) == (candidate, None, "queued")
    assert student.spec == DistilSpec(epochs=2, recipe="tinybert", sequence_length=64, pairs=0.25)
    assert served.stores == [db]
    assert app.toast[0].value == "Student s1 is queued."
    assert "TinyBERT · 2 epochs" in words(app)


def test_a_form_that_is_left_as_it_opens_asks_for_what_the_command_line_would(
    db: Path, served: Served
) -> None:
    fill(db)
    press(shown(places.CANDIDATE, candidate=first_of(db, "done")), "Distil in full")
    assert students(db)[0].spec == DistilSpec()


def test_a_distillation_says_what_it_reads_before_it_is_asked_for(db: Path) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=first_of(db, "done"))
    assert "Reads the corpus packaged **3 times**, at most 1,000,000 texts" in words(app)
    choice(app, "Epochs").set_value(1.0)
    assert "**once**" in words(app.run())


def test_a_candidate_over_budget_can_be_distilled_with_a_warning_and_not_be_scored(
    db: Path, served: Served
) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=first_of(db, "over_budget"))
    assert "misses the run's latency budget" in words(app)
    assert "It has no weights to be scored with" in words(app)
    press(app, "Distil in full")
    assert students(db)[0].notes == (
        f"Candidate {first_of(db, 'over_budget')} is over the latency budget of its run.",
    )


def test_what_is_refused_is_said_beside_the_button_and_nothing_is_queued(db: Path, served: Served) -> None:
    served.refusal = "The corpus holds 3 texts; name a larger one."
    fill(db)
    app = press(shown(places.CANDIDATE, candidate=first_of(db, "done")), "Distil in full")
    assert "Not queued. The corpus holds 3 texts" in words(app)
    assert "Distil in full" in buttons(app)
    assert not students(db)
    assert served.stores == []


def test_a_corpus_that_cannot_be_one_is_refused_at_once(db: Path, served: Served) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=first_of(db, "done"))
    field(app, "Corpus").set_value("/nowhere/texts.txt")  # type: ignore[attr-defined]
    app = press(app.run(), "Distil in full")
    assert "Not queued." in words(app)
    assert not students(db)


def test_a_candidate_lists_its_students_newest_first_with_their_progress(db: Path) -> None:
    fill(db, students=True)
    app = shown(places.CANDIDATE, candidate=2)
    links = [link.proto.label for link in app.get("page_link")]
    assert links[-3:] == ["Student s5", "Student s4", "Student s3"]
    assert "Step 3,000 of 6,000" in [bar.proto.text for bar in app.get("progress")]


def test_a_student_is_made_task_specific(db: Path, served: Served) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=GENERAL)
    choice(app, "Augment the rows").uncheck()
    app = press(app.run(), "Distil for the task")
    student = students(db)[0]
    assert (student.parent, student.candidate) == (GENERAL, 1)
    assert student.spec == DistilSpec(task="packaged", augment=False)
    assert served.stores == [db]


def test_a_student_goes_on_with_the_text_that_is_named(db: Path, tmp_path: Path, served: Served) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=GENERAL)
    [button] = [button for button in app.button if button.label == "Go on"]
    assert button.disabled
    text = tmp_path / "other.txt"
    text.write_text("\n".join(f"Sentence number {n} is about another thing." for n in range(400)))
    [corpus] = [box for box in app.text_input if box.label == "Text"]
    corpus.set_value(str(text))
    app = press(app.run(), "Go on")
    student = students(db)[0]
    assert (student.parent, student.spec.corpus, student.spec.task) == (GENERAL, str(text), None)
    with opened(db, read_only=True) as store:
        before = store.student(GENERAL).spec
    assert (student.spec.recipe, student.spec.batch_size) == (before.recipe, before.batch_size)


def test_a_file_of_word_vectors_that_is_not_there_is_refused(db: Path, served: Served) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=GENERAL)
    field(app, "Word vectors").set_value("/nowhere/glove.txt")  # type: ignore[attr-defined]
    app = press(app.run(), "Distil for the task")
    assert "There is no file '/nowhere/glove.txt'" in app.error[0].value.replace("\\", "")
    assert len(students(db)) == 5


def test_a_scoring_is_queued_with_its_tasks_seeds_and_control(
    db: Path, served: Served, tmp_path: Path
) -> None:
    fill(db, students=True)
    folder = tmp_path / "mine"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("sentence,label\na,0\nb,1\n")
    app = shown(places.STUDENT, student=GENERAL)
    field(app, "Tasks").set_value(f"packaged,\n{folder}")  # type: ignore[attr-defined]
    choice(app, "Seeds").set_value(2)
    choice(app, "Also without distillation (control)").check()
    app = press(app.run(), "Score")
    scoring = scorings(db)[0]
    assert (scoring.student, scoring.candidate, scoring.state) == (GENERAL, None, "queued")
    assert scoring.spec == ScoreSpec(tasks=["packaged", str(folder)], seeds=2, control=True)
    assert served.stores == [db]
    assert "packaged, mine · 2 seeds · validation split" in words(app)


def test_no_task_and_one_that_cannot_be_are_refused(db: Path, served: Served) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=first_of(db, "done"))
    field(app, "Tasks").set_value(" , ")  # type: ignore[attr-defined]
    app = app.run()
    assert "Name at least one task" in words(app)
    [score] = [button for button in app.button if button.label == "Score"]
    assert score.disabled
    field(app, "Tasks").set_value("/nowhere")  # type: ignore[attr-defined]
    app = press(app.run(), "Score")
    assert "Not queued. There is no folder" in words(app)
    assert scorings(db) == []


def test_the_table_of_scores_has_a_row_a_metric_and_averages_below(db: Path) -> None:
    fill(db, students=True)
    app = shown(places.CANDIDATE, candidate=1)
    [table] = [frame.value for frame in app.dataframe if "Metric" in frame.value]
    assert list(table["Task"]) == ["packaged", "sst2", "mrpc", "mrpc"]
    assert list(table["Metric"]) == ["accuracy", "accuracy", "accuracy", "F1"]
    assert table["Seeds ±"][0] > 0
    assert table["Retained (%)"].round(1)[0] == pytest.approx(85.0)
    assert "Without distillation" in table
    assert "**Average over tasks:** student 78.0 · teacher 90.9 · retained 85.8 %" in words(app)


def test_a_scoring_at_work_shows_the_teacher_and_can_be_paused(db: Path) -> None:
    fill(db, students=True)
    app = shown(places.STUDENT, student=TASK)
    [table] = [frame.value for frame in app.dataframe if "Metric" in frame.value]
    assert table["Student"].isna().all()
    assert "student: packaged: fine-tuning, seed 1 · step 30 of 120" in [
        bar.proto.text.replace("\\", "") for bar in app.get("progress")
    ]
    press(app, "Pause")
    assert scorings(db)[0].request == "pause"


def test_a_run_distils_its_best_best_first_and_lists_its_students(db: Path, served: Served) -> None:
    fill(db)
    app = shown(places.RUN, run=1)
    [count] = [each for each in app.number_input if each.label == "Distil the best … in full"]
    count.set_value(2)
    app = app.run()
    assert "best first: candidates **10, 3**" in words(app)
    app = press(app, "Distil 2 in full")
    assert [student.candidate for student in reversed(students(db))] == [10, 3]
    assert served.stores == [db]
    assert r"of candidate 10 · Sentence vectors · 3 epochs" in words(app)
    assert "best first: candidate **8**" in words(app)


def test_within_a_smaller_budget_others_are_best(db: Path) -> None:
    fill(db)
    app = shown(places.RUN, run=1)
    app.slider[0].set_value(3.0).run()
    assert "Of the frontier within 3.00 ms, best first: candidate **14**" in words(app)


def test_a_run_whose_best_are_all_distilled_says_so(db: Path) -> None:
    fill(db, episodes=1)
    with opened(db) as store:
        for row in store.candidates(1):
            store.create_student(row.id, DistilSpec())
    assert "distilled in full, or is going to be" in words(shown(places.RUN, run=1))


def test_a_students_page_is_told_when_the_student_is_gone(db: Path) -> None:
    fill(db)
    with opened(db) as store:
        gone = add_students(store, 1)["paused"]
    controls.delete(db, students(db)[1].job)
    app = shown(places.STUDENT, student=gone)
    assert "There is no student s4" in app.error[0].value
