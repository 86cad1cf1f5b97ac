"""The part of a page that scores a candidate or a student and its teacher on tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model_page import distil_form, export_section
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live_students import ScoringView
from kdnas_core.dashboard.ui import ask_button, widgets, work_controls
from kdnas_core.data.retrieval import is_retrieval
from kdnas_core.data.tables import SCORABLE
from kdnas_core.errors import BadInput
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import Score, Scoring
from kdnas_core.runs.score_table import ZERO_SHOT, ScoreRow, averages, score_rows
from kdnas_core.spec import ScoreSpec

USUAL = ScoreSpec(tasks=["packaged"])
SCALE = (
    "Scores are times 100, ± half of their 95 % interval, by seeds and test rows. Retained is the student's"
    " score as a share of the teacher's. Above chance is the same share after what always naming the most"
    " frequent class scores is subtracted from both. A difference is within noise where its own 95 % interval"
    " holds 0."
)
NO_INTERVALS = (
    "Intervals need two seeds or more. Scores that an earlier version of KD-NAS Studio kept have none."
)
CONTROL = "Also without distillation (control)"
CONTROL_HELP = "The same shape with random weights, trained on the task alone: what distillation adds."
RETRIEVAL_HELP = (
    "For vectors also `packaged-retrieval`, or a folder in BEIR's layout. Several: by commas or lines."
)
PAIRS = {"as the teacher is used": None, "together": "together", "apart": "apart"}
PAIRS_HELP = (
    "Together: as one text. Apart: each by itself, and a head over both vectors, as sentence encoders are"
    " served; that is how a teacher made for sentence vectors is used."
)

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "matthews": "Matthews' correlation",
    "ndcg@10": "nDCG of the first 10",
    "pearson": "Pearson's correlation",
    "recall@10": "recall of the first 10",
    "spearman": "Spearman's correlation",
}
SCORE_COLUMNS = {
    "Task": st.column_config.TextColumn(pinned=True),
    "Student": st.column_config.TextColumn(alignment="right", help="mean over seeds"),
    "Seeds ±": st.column_config.NumberColumn(format="%.1f", help="sample standard deviation over seeds"),
    "Teacher": st.column_config.TextColumn(alignment="right", help="mean over seeds"),
    "Retained (%)": st.column_config.NumberColumn(format="%.1f"),
    "Above chance (%)": st.column_config.NumberColumn(format="%.1f"),
    "Without distillation": st.column_config.NumberColumn(format="%.1f"),
    "Before": st.column_config.NumberColumn(format="%.1f", help="the student that this one goes on from"),
}

SELDOM = ("Seeds ±", "Above chance (%)", "Difference", "Without distillation", "Before")


def show(db: Path, source: Source) -> None:
    """Draws the form and the scorings, which are updated while they run."""
    st.header("Scores on tasks")
    if export_section.has_weights(source):
        _form(db, source)
    else:
        st.markdown(_why_not(source))
    scorings = [view.scoring for view in _read(db, source)]
    refresh = live.refresh_s(scorings)
    st.fragment(_results, run_every=refresh, key="scores")(db, source, refresh)


def _why_not(source: Source) -> str:
    if source.student is not None:
        return "It can be scored once its distillation is finished."
    return "It has no weights to be scored with. Distil it in full, and score that student."


@st.fragment(key="score_form")
def _form(db: Path, source: Source) -> None:
    """Draws the form; the button is disabled until the fields are complete."""
    of = source.name  # what was typed for one model is not asked for of the next
    text = st.text_area(
        "Tasks", "packaged", height=68, help=f"{distil_form.TASK_HELP} {RETRIEVAL_HELP}", key=f"tasks_{of}"
    )
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    fields: dict[str, Any] = {
        "seeds": left.number_input(
            "Seeds", 1, 20, USUAL.seeds, help="Models fine-tuned on each task.", key=f"seeds_{of}"
        ),
        "control": right.checkbox(CONTROL, help=CONTROL_HELP, key=f"control_{of}"),
        **_more(of),
    }
    try:
        fields["tasks"] = requests.tasks_of(text)
    except BadInput as error:
        widgets.trouble(error)
    ask_button.show(
        "Score",
        f"score_{source.name}",
        db,
        lambda: requests.score(db, source.name, fields),
        disabled="tasks" not in fields,
    )


def _more(of: str) -> dict[str, Any]:
    with st.expander("Split, rows, language and pairs"):
        pairs = st.radio(
            "Sentences of a pair are read", list(PAIRS), horizontal=True, help=PAIRS_HELP, key=f"read_{of}"
        )
        left, middle, right = st.columns(3)
        return {
            "pairs": PAIRS[pairs],
            "split": left.selectbox("Scored split", SCORABLE, key=f"split_{of}"),
            "rows": middle.number_input(
                "Training rows at most", 16, 10_000_000, USUAL.rows, key=f"rows_{of}"
            ),
            "train_language": right.text_input(
                "Language to train on",
                placeholder="the task's own",
                help="For tasks in several languages.",
                key=f"language_{of}",
            ).strip(),
        }


def _read(db: Path, source: Source) -> list[ScoringView]:
    if source.student is not None:
        return live_students.read_scorings(db, student=source.student.id)
    return live_students.read_scorings(db, candidate=source.candidate.id)


@widgets.sentences()
def _results(db: Path, source: Source, refresh: float | None) -> None:
    widgets.say()
    views, earlier = _read(db, source), _before(db, source)
    for view in views:
        before = next((each.scores for each in earlier if each.scoring.spec == view.scoring.spec), [])
        with st.container(border=True, key=f"scoring_{view.scoring.id}"):
            _scoring(db, view, before)
    if live.refresh_s([view.scoring for view in views]) != refresh:
        st.rerun()  # only a run of the whole page changes the refresh time of a fragment


def _before(db: Path, source: Source) -> list[ScoringView]:
    """The scorings of the student that this one goes on from."""
    student = source.student
    if student is None or student.parent is None or student.spec.task is not None:
        return []
    return live_students.read_scorings(db, student=student.parent)


def _scoring(db: Path, view: ScoringView, before: Sequence[Score]) -> None:
    scoring = view.scoring
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**Scoring {scoring.id}** · {wording.plain(how(scoring.spec))}", width="content")
        widgets.state_badge(scoring)
        work_controls.change(db, scoring)
        work_controls.delete_button(scoring)
    what = f"Scoring {scoring.id} and its scores are deleted for good; what was scored stays."
    work_controls.confirm_delete(db, scoring, what, st.rerun)
    work_controls.trouble(scoring)
    _progress(scoring)
    if view.scores:
        _table(view, before)


def how(spec: ScoreSpec) -> str:
    """Describes a scoring, for example "sst2, mrpc · 3 seeds · validation split".

    Where all tasks are of retrieval, nothing is trained, and their metrics name the split.
    """
    tasks = ", ".join(map(wording.task, spec.tasks))
    if all(map(is_retrieval, spec.tasks)):
        return tasks
    parts = [tasks, "1 seed" if spec.seeds == 1 else f"{spec.seeds} seeds", f"{spec.split} split"]
    if spec.rows != USUAL.rows:
        parts.append(f"at most {spec.rows:,} training rows")
    if spec.pairs:
        parts.append(f"pairs read {spec.pairs}")
    if spec.train_language:
        parts.append(f"trained on {spec.train_language}")
    return " · ".join(parts)


def _progress(scoring: Scoring) -> None:
    if scoring.state == "running":
        share = scoring.step / scoring.steps if scoring.steps else 0.0
        steps = f" · step {scoring.step:,} of {scoring.steps:,}" if scoring.steps else ""
        st.progress(min(1.0, share), text=f"{wording.plain(scoring.activity or 'starting')}{steps}")


def _table(view: ScoringView, before: Sequence[Score]) -> None:
    table = scores_table(view.scores, before)
    st.dataframe(
        table,
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config=SCORE_COLUMNS,
        alt="Scores of the student and its teacher, a row for each metric of each task",
    )
    if told := _summary(view):
        st.markdown(told)
    lacks = any(row.student is not None and row.interval is None for row in score_rows(view.scores))
    st.markdown(f":small[{SCALE}{f' {NO_INTERVALS}' if lacks else ''}]")


def _summary(view: ScoringView) -> str:
    found = averages(view.scores)
    parts = [
        f"{name} {figure}"
        for name, figure, known in (
            ("student", _interval(found.student, found.interval), found.student),
            ("teacher", _interval(found.teacher, found.teacher_interval), found.teacher),
            ("retained", wording.percent(found.retained), found.retained),
            ("above chance", wording.percent(found.above_chance), found.above_chance),
            ("without distillation", wording.points(found.control), found.control),
        )
        if known is not None
    ]
    if not parts:
        return ""
    if found.within_noise:
        parts.append("a difference within noise")
    so_far = "" if view.scoring.state == "finished" else " so far"
    return f"**Average over tasks{so_far}:** {' · '.join(parts)}{_left_out(view.scores)}"


def _left_out(scores: Sequence[Score]) -> str:
    some = any(score.task.endswith(ZERO_SHOT) for score in scores)
    return " (zero-shot scores are of another kind and not in it)" if some else ""


def scores_table(scores: Sequence[Score], before: Sequence[Score] = ()) -> pd.DataFrame:
    """Returns one row for each task and metric, without the columns that are empty in all.

    Args:
        scores: of a scoring.
        before: of the student that the scored one goes on from.
    """
    known = {(row.task, row.metric): row.student for row in score_rows(before)}
    rows = score_rows(scores)
    table = pd.DataFrame(
        [{**_row(row), "Before": _times_100(known.get((row.task, row.metric)))} for row in rows]
    )
    return table.drop(columns=[name for name in SELDOM if name in table and table[name].isna().all()])


def metric(name: str) -> str:
    """Describes a metric, with its split if it has one: "accuracy, de"."""
    first, comma, split = name.partition(",")
    return METRICS.get(first, first.replace("_", " ")) + comma + split


def _row(row: ScoreRow) -> dict[str, object]:
    return {
        "Task": row.task,
        "Metric": metric(row.metric),
        "Student": _interval(row.student, row.interval),
        "Seeds ±": _times_100(row.spread),
        "Teacher": _interval(row.teacher, row.teacher_interval),
        "Retained (%)": _times_100(row.retained),
        "Above chance (%)": _times_100(row.above_chance),
        "Difference": None
        if row.within_noise is None
        else "within noise"
        if row.within_noise
        else "more than noise",
        "Without distillation": _times_100(row.control),
    }


def _interval(value: float | None, half: float | None) -> str | None:
    """A score, and half of its 95 % interval if that is known: "82.5 ± 2.6"."""
    if value is None:
        return None
    return wording.points(value) + ("" if half is None else f" ± {wording.points(half)}")


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value
