"""The parts of the page that compares candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.compare import figures
from kdnas_core.dashboard.model import comparison, progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui import links
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.picks import margin_of

DIFFERS = "≠"


def shapes(seen: Sequence[CandidateView]) -> None:
    """Draws a table with a column for each candidate; rows in which they differ come first, marked."""
    columns = {str(view.candidate.id): _facts(view) for view in seen}
    table = pd.DataFrame(columns)
    differs = table.nunique(axis=1) > 1
    table.insert(0, DIFFERS, differs.map({True: DIFFERS, False: ""}))
    table = table.loc[differs.sort_values(ascending=False, kind="stable").index]
    st.dataframe(
        table.reset_index(names="Fact"),
        hide_index=True,
        height="content",
        column_config={DIFFERS: st.column_config.TextColumn(width=40)},
        alt="Facts of each candidate, those in which they differ first",
    )
    with st.container(horizontal=True):
        for view in seen:
            links.to_candidate(view.candidate.id, f"Open {view.candidate.id}")


def _facts(view: CandidateView) -> dict[str, str]:
    row, shape = view.candidate, view.candidate.architecture
    latency = row.latency
    return {
        "Run": str(row.run),
        "State": wording.state(row.state),
        "Layers": str(shape.layers),
        "Hidden size": str(shape.hidden_size),
        "FFN size": str(shape.intermediate_size),
        "Heads": str(shape.attention_heads),
        "Activation": shape.hidden_act,
        "Latency p50": wording.milliseconds(None if latency is None else latency.p50),
        "Latency p95": wording.milliseconds(None if latency is None else latency.p95),
        "Speed-up": wording.times(progress.speedup_of(row)),
        "Agreement": wording.agreement(row.loss, row.loss_se),
        "Task score": wording.number(row.proxy_score),
        "Reward": wording.number(row.reward),
        "Parameters": wording.count(row.parameters),
        "FLOPs": wording.count(row.flops),
    }


def latencies(seen: Sequence[CandidateView]) -> None:
    """Draws the distributions of their latencies, or says why they do not compare."""
    st.header("Latency")
    if (why := comparison.latencies_differ_in(seen)) is not None:
        st.info(why)
        return
    st.plotly_chart(
        figures.latencies(seen), key="latencies", config=CONFIG, alt="The timed runs of each candidate"
    )


def losses(db: Path, seen: Sequence[CandidateView]) -> None:
    """Draws how far they are apart, their layers, and their runs' frontiers, or why these do not compare."""
    st.header("Agreement")
    if (why := comparison.losses_differ_in(seen)) is not None:
        st.info(why)
        return
    st.markdown("\n".join(f"- {words}" for words in _differences(seen)))
    left, right = st.columns(2)
    with left:
        runs = [live.read_run(db, run) for run in dict.fromkeys(view.run.id for view in seen)]
        found = [(each.run, Findings.of(each.candidates, None)) for each in runs]
        criterion = wording.criterion([view.candidate for view in seen], seen[0].run.spec.objective.yardstick)
        st.plotly_chart(
            figures.frontiers(found, seen, criterion),
            key="frontiers",
            config=CONFIG,
            alt=f"The frontiers of {len(runs)} runs with the compared candidates",
        )
    with right:
        st.plotly_chart(
            figures.profiles(seen),
            key="profiles",
            config=CONFIG,
            alt="The error of each candidate's layers by relative depth",
        )


def _differences(seen: Sequence[CandidateView]) -> list[str]:
    """How far each is behind the best of them, with the noise of that."""
    rows = progress.distilled([view.candidate for view in seen])
    if not rows:
        return ["None of them was distilled to the end."]
    best = min(rows, key=lambda row: row.point[1])
    told = [f"Candidate {best.id} is the best of them: {wording.judged(best)}."]
    for row in sorted(rows, key=lambda row: row.point[1]):
        if row is best:
            continue
        ms = row.point[0] - best.point[0]
        told.append(
            f"Candidate {row.id} is {wording.lead(*margin_of(best, row))} behind,"
            f" {wording.milliseconds(abs(ms))} {'faster' if ms < 0 else 'slower'}."
        )
    return told
