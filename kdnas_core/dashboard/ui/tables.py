"""Converts rows of the store to data frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.layer_terms import TermLoss
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.runs.picks import Pick
from kdnas_core.runs.records import AnyWork, Candidate

RUN_COLUMNS = {
    "Run": st.column_config.NumberColumn(pinned=True, format="%d", alignment="left"),
    "Name": st.column_config.TextColumn(pinned=True),
    "Done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1, width=110),
    "Best so far": st.column_config.LineChartColumn(
        help="The best agreement or score within the budget, by candidates judged",
        y_min=0,
        y_max=1,
        width=110,
    ),
    "Tags": st.column_config.ListColumn(),
    "Started": st.column_config.DatetimeColumn(format="distance"),
    "Students": st.column_config.NumberColumn(format="%d", help="distilled in full, or to be"),
}
JOB_COLUMNS = {
    "Done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1, width=110),
    "Asked for": st.column_config.DatetimeColumn(format="distance"),
}
CANDIDATE_COLUMNS = {
    "Candidate": st.column_config.NumberColumn(pinned=True, format="%d"),
    "Latency p50 (ms)": st.column_config.NumberColumn(format="%.2f"),
    "Not measured": st.column_config.TextColumn(
        width=150, help="far over the budget by the latency model, so skipped; the model's estimate"
    ),
    "Speed-up": st.column_config.NumberColumn(format="%.1f×", help="against the teacher, measured in turns"),
    "Agreement": st.column_config.NumberColumn(
        format="%.1f %%", help="with the teacher on held-out text, after the mini-KD; 0 % is no relation"
    ),
    "±": st.column_config.NumberColumn(format="%.1f", help="its standard error over held-out texts"),
    "Task score": st.column_config.NumberColumn(
        format="%.3f", help="after some seconds of fine-tuning on a part of the tasks' training splits"
    ),
    "Reward": st.column_config.NumberColumn(format="%.3f"),
    "Reason": st.column_config.TextColumn(help="why it failed"),
    "Parameters (M)": st.column_config.NumberColumn(format="%.1f"),
}
PICK_COLUMNS = {
    **CANDIDATE_COLUMNS,
    "Budget": st.column_config.TextColumn(pinned=True),
    "Candidate": st.column_config.NumberColumn(format="%d"),
}
# as text: losses of several scales stand in one column
TERM_COLUMNS = {
    "First": st.column_config.TextColumn(alignment="right"),
    "Last": st.column_config.TextColumn(alignment="right"),
    "Change": st.column_config.TextColumn(alignment="right"),
}


def runs_table(snapshots: Sequence[Snapshot]) -> pd.DataFrame:
    """Returns one row for each run, in the given order."""
    return pd.DataFrame([_run_row(snapshot) for snapshot in snapshots])


def jobs_table(works: Sequence[AnyWork]) -> pd.DataFrame:
    """Returns one row for each piece of work, in the given order."""
    return pd.DataFrame([_job_row(work) for work in works])


def _job_row(work: AnyWork) -> dict[str, object]:
    return {
        "Work": work.job.title,
        "State": wording.state(work.state),
        "Now": work.error if work.state == "failed" else work.activity,
        "Done": work.step / work.steps if work.steps else None,
        "Asked for": datetime.fromtimestamp(work.created_at, UTC),
        "Time spent": wording.duration(work.seconds),
    }


def candidates_table(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Returns one row for each candidate, in the given order."""
    table = pd.DataFrame([_candidate_row(candidate) for candidate in candidates])
    told = {
        "±": any(candidate.loss_se is not None for candidate in candidates),
        "Not measured": any(row.latency is None and row.estimated_ms is not None for row in candidates),
        "Embedding": any(candidate.architecture.embedding_size is not None for candidate in candidates),
        "Reason": any(candidate.error for candidate in candidates),
        "Task score": any(candidate.proxy_score is not None for candidate in candidates),
    }
    return table.drop(columns=[column for column, is_told in told.items() if not is_told], errors="ignore")


def as_parquet(table: pd.DataFrame) -> bytes:
    """Returns a table as a Parquet file."""
    file = BytesIO()
    table.to_parquet(file, index=False)
    return file.getvalue()


def picks_table(picks: Sequence[Pick]) -> pd.DataFrame:
    """Returns one row for each budget, in the given order."""
    rows = [_pick_row(pick) for pick in picks]
    for row, pick in zip(rows, picks, strict=True):
        row["Gain for each ms"] = _gain(pick, picks)
    return pd.DataFrame(rows)


def _gain(pick: Pick, picks: Sequence[Pick]) -> str:
    """By how many points it is better, for each ms that it takes more, than the pick of the next budget."""
    best = pick.best
    if best is None:
        return wording.UNKNOWN
    others = [other.best for other in picks if other.best and other.best.point[0] < best.point[0]]
    if not others:
        return wording.UNKNOWN
    faster = max(others, key=lambda row: row.point[0])
    gain = 100 * (faster.point[1] - best.point[1]) / (best.point[0] - faster.point[0])
    return f"{gain:.1f} points, over candidate {faster.id}"


def _pick_row(pick: Pick) -> dict[str, object]:
    best, amount = pick.best, pick.budget.amounts[0]
    speedup = None if best is None or best.latency is None else best.latency.speedup
    return {
        "Budget": wording.milliseconds(amount) if pick.budget.budget_ms else f"{amount:g}×",
        "Candidate": best and best.id,
        "Student": wording.UNKNOWN if best is None else wording.shape(best.architecture),
        "Latency p50 (ms)": best and best.point[0],
        "Speed-up": speedup,
        "Value": wording.UNKNOWN if best is None else wording.judged(best),
        "Ahead of the next": _ahead(pick),
        "Tied with": ", ".join(str(each.id) for each in pick.tied) or wording.UNKNOWN,
        "Better unseen": wording.UNKNOWN if pick.chance_unseen is None else f"{pick.chance_unseen:.0%}",
    }


def _ahead(pick: Pick) -> str:
    if pick.next is None or pick.margin is None:
        return wording.UNKNOWN
    spread = "" if pick.margin_se is None else f" ± {100 * pick.margin_se:.1f}"
    if pick.margin < 0:
        return f"{-100 * pick.margin:.1f}{spread} points behind candidate {pick.next.id}, which is slower"
    return f"{100 * pick.margin:.1f}{spread} points (candidate {pick.next.id})"


def terms_table(summary: Sequence[TermLoss]) -> pd.DataFrame:
    """Returns one row for each loss term, in the given order."""
    return pd.DataFrame([_term_row(loss) for loss in summary])


def _term_row(loss: TermLoss) -> dict[str, object]:
    return {
        "Term": wording.term(loss.term),
        "First": wording.significant(loss.first),
        "Last": wording.significant(loss.last),
        "Change": wording.UNKNOWN if loss.change is None else f"{100 * loss.change:+.0f} %",
    }


def _run_row(snapshot: Snapshot) -> dict[str, object]:
    run, candidates = snapshot.run, snapshot.candidates
    judged, planned = len(progress.judged(candidates)), progress.planned(run)
    left = progress.seconds_left(run, candidates)
    return {
        "Run": run.id,
        "Name": run.name,
        "State": wording.state(run.state),
        "Judged": f"{judged} of {planned}",
        "Done": 1.0 if run.state == "finished" else judged / max(1, planned),
        "Left": None if left is None else wording.duration(left),
        "Pick within budget": _best(snapshot),
        "Best so far": progress.best_so_far(candidates),
        "Students": len(snapshot.students),
        "Tags": list(run.tags),
        "Note": run.note,
        "Budget": wording.budget(run.spec.latency, progress.budget_of(run)),
        "Started": datetime.fromtimestamp(run.created_at, UTC),
    }


def _best(snapshot: Snapshot) -> str:
    limit = progress.own_limit(snapshot.run)
    best = None if limit is None else progress.best_within(snapshot.candidates, limit)
    if best is None:
        return wording.UNKNOWN
    return f"{wording.judged(best)} at {wording.milliseconds(best.point[0])}"


def _candidate_row(candidate: Candidate) -> dict[str, object]:
    architecture, latency = candidate.architecture, candidate.latency
    has_layers = not architecture.is_static
    return {
        "Candidate": candidate.id,
        "Episode": candidate.episode,
        "State": wording.state(candidate.state),
        "Latency p50 (ms)": latency and latency.p50,
        "Not measured": "" if latency else wording.estimated(candidate.estimated_ms),
        "Speed-up": latency and latency.speedup,
        "Agreement": None if candidate.loss is None else 100 * (1 - candidate.loss),
        "±": candidate.loss_se and 100 * candidate.loss_se,
        "Task score": candidate.proxy_score,
        "Reward": candidate.reward,
        "Reason": candidate.error,
        "Layers": architecture.layers,
        "Hidden": architecture.hidden_size,
        "Embedding": architecture.embedding_size,
        "FFN": architecture.intermediate_size if has_layers else None,
        "Heads": architecture.attention_heads if has_layers else None,
        "Activation": architecture.hidden_act if has_layers else None,
        "Parameters (M)": candidate.parameters and candidate.parameters / 1e6,
    }
