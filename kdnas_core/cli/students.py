"""The commands on students: distil, score, list, show and import."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kdnas_core.cli.base import DEFAULT_DB, Db, Json, existing, prepare_libraries, say, show_result
from kdnas_core.cli.progress_bar import steps_bar
from kdnas_core.errors import BadInput
from kdnas_core.package.import_ import import_student
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.names import (
    check_student,
    going_on_from,
    latest_scores,
    new_scoring,
    new_student,
    source_named,
    source_of,
    weights_of,
)
from kdnas_core.runs.records import Score, Scoring, Student
from kdnas_core.runs.score_table import ScoreRow, averages, score_rows
from kdnas_core.runs.store import Store, bytes_of, opened
from kdnas_core.spec import DistilSpec, ScoreSpec, parse_distil, parse_score, with_settings

SourceName = Annotated[
    str, typer.Argument(metavar="CANDIDATE-or-STUDENT", help="A candidate, as 12, or a student, as s3.")
]
SourceNames = Annotated[
    list[str],
    typer.Argument(metavar="CANDIDATE-or-STUDENT...", help="Candidates, as 12, or students, as s3."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", help="field=value, for example batch_size=16; may be given again."),
]
Check = Annotated[bool, typer.Option("--check", help="Check what is asked for, and do nothing.")]

Export = Annotated[Path, typer.Argument(help="The folder or the zip of an exported student.")]


def distill(
    source: SourceNames,
    db: Db = DEFAULT_DB,
    epochs: Annotated[float | None, typer.Option("--epochs", help="How often the texts are read.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Another than that of its run.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Make a student for this task of it.")] = None,
    corpus: Annotated[str | None, typer.Option("--corpus", help="Another than that of its run.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the order of the texts.")] = None,
    setting: Fields = None,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Distil candidates in full, one after another.

    Ctrl-C interrupts the one in hand, which `resume` goes on with; those after it are not begun.

    Students of the same teacher layers and texts share the teacher's outputs, where those are kept.
    """
    fields = _given(epochs=epochs, recipe=recipe, task=task, corpus=corpus, seed=seed)
    how = parse_distil(with_settings({}, setting or []) | fields)
    for name in source:  # all of them before anything is written
        _check_distillation(existing(db), name, how)
    if check:
        return
    with opened(db) as store:
        made: list[Student] = []
        try:
            while len(made) < len(source) and all(student.state == "finished" for student in made):
                made.append(_distilled(store, db, source[len(made)], how))
        except KeyboardInterrupt:
            _say_not_begun(source[len(made) + 1 :])
            raise
        _say_not_begun(source[len(made) :])
        for student in made:
            _say_queued(store, student)
        outcomes = [_outcome(store, student) for student in made]
        lines = [line for student in made for line in _student_lines(store, student)]
        show_result(outcomes[0] if len(source) == 1 else {"students": outcomes}, as_json, lambda: lines)
        _fail_if_failed(made[-1])


def _say_queued(store: Store, student: Student) -> None:
    """Says that what an earlier student was scored on waits to be scored again."""
    before = going_on_from(store, student)
    if before is not None and any(each.state == "queued" for each in store.scorings(student=student.id)):
        say(
            f"What {before.name} was scored on is queued for {student.name} too: "
            "`python -m kdnas_core worker --until-idle` scores it, `show` compares."
        )


def _say_not_begun(names: list[str]) -> None:
    if names:
        say(f"Not begun: {', '.join(names)}. Name them to `distill` again.")


def _distilled(store: Store, db: Path, name: str, how: DistilSpec) -> Student:
    from kdnas_core.runs import worker

    student = store.student(new_student(store, source_named(store, name), how, Worker.this_process()))
    say(f"student {student.name} in {db}")
    with steps_bar() as told:
        worker.distil(store, student, told)
    return store.student(student.id)


def _check_distillation(db: Path, name: str, how: DistilSpec) -> None:
    with opened(db, read_only=True) as store:
        source = source_named(store, name)
        notes = check_student(store, source, how)
        prepare_libraries()
        from kdnas_core.runs.student_journals import check_distillation

        check_distillation(store, source, how)
    for note in notes:
        say(note)


def evaluate(
    source: SourceName,
    db: Db = DEFAULT_DB,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="`packaged`, `packaged-retrieval`, a folder, or hub:NAME[:CONFIG]; may be given again.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Fine-tuned models on each task.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", help="The most rows of a training split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which to score.")] = None,
    train_language: Annotated[
        str | None, typer.Option("--train-language", help="Of tasks in several languages.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option("--pairs", help="together or apart: how sentences of pairs are read.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also score the same student without distillation.")
    ] = False,
    setting: Fields = None,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Fine-tune and score a student and its teacher on tasks, in the foreground; scores are remembered."""
    fields = _given(
        tasks=task,
        seeds=seeds,
        rows=rows,
        split=split,
        train_language=train_language,
        pairs=pairs,
        control=control or None,
    )
    fields = with_settings({}, setting or []) | fields
    if "tasks" not in fields:
        raise BadInput("Name a task: --task packaged, --task FOLDER or --task hub:NAME.")
    how = parse_score(fields)
    _check_evaluation(existing(db), source, how)
    if check:
        return
    from kdnas_core.runs import worker

    with opened(db) as store:
        scoring = store.scoring(new_scoring(store, source_named(store, source), how, Worker.this_process()))
        with steps_bar() as told:
            worker.score(store, scoring, told)
        scoring, scores = store.scoring(scoring.id), store.scores(scoring.id)
        shown = {"state": scoring.state, **_scores_object(scores)}
        show_result(shown, as_json, lambda: _score_lines(scores))
        _fail_if_failed(scoring)


def _check_evaluation(db: Path, name: str, how: ScoreSpec) -> None:
    with opened(db, read_only=True) as store:
        source = source_named(store, name)
        weights_of(store, source)
        prepare_libraries()
        from kdnas_core.runs.student_journals import check_evaluation

        check_evaluation(store, source, how)


def students(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List students, newest first."""
    with opened(db, read_only=True) as store:
        rows = store.students()
        shown = {"students": [student_object(store, row) for row in rows]}
        lines = [_student_line(store, row) for row in rows]
        show_result(shown, as_json, lambda: lines or ["No students yet."])


def show_student(store: Store, student: Student, as_json: bool) -> None:
    """Prints a student with its scores."""
    scores = latest_scores(store, source_of(store, student))
    before = going_on_from(store, student)
    earlier = [] if before is None else latest_scores(store, source_of(store, before))
    shown = {**student_object(store, student), **_scores_object(scores, earlier)}
    lines = [*_student_lines(store, student), *_score_lines(scores)]
    if before is not None and earlier:
        lines += [f"before, as {before.name}:", *_score_lines(earlier)]
    show_result(shown, as_json, lambda: lines)


def student_object(store: Store, student: Student) -> dict[str, Any]:
    """Returns the student object of `--json`, with the path of its folder and its size in bytes."""
    folder = store.student_files(student.run, student.id)
    return {**student.to_dict(), "path": str(folder.resolve()), "bytes": bytes_of(folder)}


# --- inside -----------------------------------------------------------------------------------------------


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _fail_if_failed(work: Student | Scoring) -> None:
    if work.state == "failed":
        say(work.error or "It failed.")
        raise typer.Exit(1)


def _outcome(store: Store, student: Student) -> dict[str, Any]:
    return {
        "student": student.name,
        "state": student.state,
        "path": str(store.student_files(student.run, student.id).resolve()),
        "seconds": round(student.seconds, 1),
        "loss": student.loss,
        "notes": list(student.notes),
    }


def _scores_object(scores: list[Score], earlier: list[Score] | None = None) -> dict[str, Any]:
    """The scores, each with that of the student that this one goes on from, if there is one."""
    found = averages(scores)
    before = {(row.task, row.metric): row.student for row in score_rows(earlier or [])}
    return {
        "scores": [
            {**row.to_dict(), "before": before.get((row.task, row.metric))} for row in score_rows(scores)
        ],
        "average": found.student,
        "teacher_average": found.teacher,
        "retained": found.retained,
        "retained_above_chance": found.above_chance,
        "interval": found.interval,
        "within_noise": found.within_noise,
    }


def _student_lines(store: Store, student: Student) -> list[str]:
    folder = store.student_files(student.run, student.id)
    return [_student_line(store, student), f"       {folder}", *(f"       {note}" for note in student.notes)]


def _student_line(store: Store, student: Student) -> str:
    origin = f"candidate {student.candidate}" if student.parent is None else f"s{student.parent}"
    of = origin if student.spec.task is None else f"{origin} for {student.spec.task}"
    size = bytes_of(store.student_files(student.run, student.id)) / 1e6
    line = f"{student.name:>5}  {student.state:<12} {of:<24} {size:8.1f} MB"
    return line if student.loss is None else f"{line}  loss {student.loss:.4f}"


def _score_lines(scores: list[Score]) -> list[str]:
    if not scores:
        return []
    found = averages(scores)
    average = ScoreRow("average", "", spread=None, **asdict(found))
    names = " ".join(f"{name:>8}" for name in ("student", "± 95 %", "spread", "teacher"))
    rows = [*score_rows(scores), average]
    widths = (max(24, *(len(row.task) for row in rows)), max(12, *(len(row.metric) for row in rows)))
    shares = f"{'retained':>9} {'above chance':>13}"
    head = f"{'task':<{widths[0]}} {'metric':<{widths[1]}} {names} {shares} {'control':>8}"
    return [head, *(_score_line(row, widths) for row in rows)]


def _score_line(row: ScoreRow, widths: tuple[int, int]) -> str:
    figures = [_figure(figure) for figure in (row.student, row.interval, row.spread, row.teacher)]
    retained, above = ("" if share is None else f"{share:.1%}" for share in (row.retained, row.above_chance))
    name = f"{row.task:<{widths[0]}} {row.metric:<{widths[1]}}"
    noise = "  within noise of the teacher" if row.within_noise else ""
    shown = f"{name} {' '.join(figures)} {retained:>9} {above:>13} {_figure(row.control)}"
    return f"{shown}{noise}".rstrip()


def _figure(value: float | None) -> str:
    return f"{'' if value is None else f'{value:.4f}':>8}"


def import_(path: Export, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Bring an exported student back, as a finished run: checked, with its figures, to go on with."""
    if path.suffix.lower() == ".json":
        raise BadInput(f"{path} is a search and no student; start it with `search --spec {path}`.")
    done = import_student(db, path, str(path), lambda activity: say(f"{activity} ..."))
    name = None if done.student is None else f"s{done.student}"
    shown = {
        "run": done.run,
        "candidate": done.candidate,
        "student": name,
        "path": str(done.path),
        "sha256": done.sha256,
    }
    title = f"candidate {done.candidate}" if name is None else f"student {name}"
    show_result(shown, as_json, lambda: [f"run {done.run}: {title}, sha256 {done.sha256}", f"  {done.path}"])
