"""The part of a run's page to choose a candidate: budget, frontier, the best within it, and the table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import frontier_figure
from kdnas_core.dashboard.ui import tables, widgets
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.picks import picks
from kdnas_core.runs.records import Candidate, Run

TIED = (
    "The best candidate within a budget is tied with those whose agreement is lower by no more than the noise"
    " of the difference, as held-out texts show it; the fastest of them is picked. Better unseen is the"
    " probability, by a surrogate of all losses, that one of the most promising of 2,000 architectures that"
    " were not judged has a loss lower by one per cent."
)
_FINEST_MS = 0.01  # as shown


def show(db: Path, snapshot: Snapshot) -> float | None:
    """Draws slider, frontier, cards and the picks of several budgets; returns the slider's budget in ms."""
    limit = _budget_slider(snapshot)
    _draw(snapshot, limit)
    _cards(snapshot, limit)
    _picks(db, snapshot)
    return limit


def show_table(snapshot: Snapshot, limit: float | None) -> None:
    """Draws the table of candidates, in which selecting a row is the same as clicking a point."""
    run = snapshot.run
    st.header("Candidates")
    only_frontier = st.toggle("Frontier only", key=f"only_frontier_{run.id}")
    rows = progress.frontier(snapshot.candidates, limit) if only_frontier else snapshot.candidates
    if not rows:
        st.markdown("None yet.")
        return
    shown = [row.id for row in rows]
    # the frontier can lose rows: a new table then, so that no other row looks selected
    table = f"candidates_{run.id}" + ("".join(f"_{row}" for row in shown) if only_frontier else "")
    st.dataframe(
        tables.candidates_table(rows),
        hide_index=True,
        key=table,
        on_select=lambda: _choose_row(run.id, table, shown),
        selection_mode="single-row",
        placeholder=wording.UNKNOWN,
        column_config=tables.CANDIDATE_COLUMNS,
        alt="Candidates in the order they were proposed; select a row to choose one",
    )


def _chosen_key(run: int) -> str:
    return f"chosen_{run}"


def _choose_point(run: int, chart: str) -> None:
    candidate = live.clicked(st.session_state[chart].selection.points)
    if candidate is not None:
        st.session_state[_chosen_key(run)] = candidate


def _choose_row(run: int, table: str, shown: list[int]) -> None:
    candidate = live.selected(st.session_state[table].selection.rows, shown)
    if candidate is not None:
        st.session_state[_chosen_key(run)] = candidate


def _clear_choice(run: int) -> None:
    st.session_state.pop(_chosen_key(run), None)


def _budget_slider(snapshot: Snapshot) -> float | None:
    scale = slider_scale(snapshot.run)
    if scale is None:
        return None
    position = st.slider(
        "Latency budget (ms, p50): a student within it is picked from what was measured",
        min_value=scale.low,
        max_value=scale.high,
        value=scale.start,
        step=scale.step,
        format="%.2f ms",
        key=f"budget_{snapshot.run.id}",
    )
    limit = scale.budget(position)
    if limit > scale.own:
        st.markdown(
            f"Beyond the search's own budget of {wording.milliseconds(scale.own)} nothing was distilled."
        )
    return limit


def _draw(snapshot: Snapshot, limit: float | None) -> None:
    run = snapshot.run
    chart = f"frontier_{run.id}"
    chosen = st.session_state.get(_chosen_key(run.id))
    front = len(progress.frontier(snapshot.candidates, limit))
    st.plotly_chart(
        frontier_figure.frontier_figure(
            snapshot.candidates,
            budget_ms=limit,
            teacher_ms=progress.teacher_ms(run),
            yardstick=run.spec.objective.yardstick,
            chosen=chosen,
        ),
        key=chart,
        on_select=lambda: _choose_point(run.id, chart),
        selection_mode="points",
        config=CONFIG,
        alt=f"Latency against {wording.criterion(snapshot.candidates, run.spec.objective.yardstick)}; "
        f"{front} students on the Pareto frontier within the budget",
    )
    if run.teacher is not None:
        st.markdown(f":small[Measured on {wording.protocol(run.teacher.latency)}]")


def _cards(snapshot: Snapshot, limit: float | None) -> None:
    run, candidates = snapshot.run, snapshot.candidates
    chosen = {row.id: row for row in candidates}.get(st.session_state.get(_chosen_key(run.id), 0))
    left, right = st.columns(2)
    with left:
        _best_card(candidates, limit)
    with right:
        if chosen is None:
            st.markdown("Click a point, or select a row of the table, to look at a candidate.")
        else:
            state = wording.state(chosen.state)
            widgets.candidate_card(chosen, f"Your choice: candidate {chosen.id} ({state})", "choice")
            st.button("Clear choice", on_click=_clear_choice, args=(run.id,))


def _best_card(candidates: list[Candidate], limit: float | None) -> None:
    best, tied = (None, ()) if limit is None else progress.pick_within(candidates, limit)
    if best is not None:
        widgets.candidate_card(
            best, f"Pick within {wording.milliseconds(limit)}: candidate {best.id}", "best"
        )
        if better := [each for each in tied if each.point[1] < best.point[1]]:
            st.markdown(f":small[{wording.tie(better)}]")
    elif limit is not None and progress.distilled(candidates):
        st.info(f"No student so far takes {wording.milliseconds(limit)} or less; raise the budget.")
    else:
        st.info("No student has been distilled yet; the first appears here as soon as it is judged.")


def _picks(db: Path, snapshot: Snapshot) -> None:
    """Draws a table with the pick for each of several budgets, and a download of their configurations."""
    run = snapshot.run
    found = picks(run, snapshot.candidates)
    if len(found) > 1:
        st.subheader("For each budget")
        st.dataframe(
            tables.picks_table(found),
            hide_index=True,
            placeholder=wording.UNKNOWN,
            column_config=tables.PICK_COLUMNS,
            alt="The pick for each budget of the search, and how far it is ahead of the next",
        )
        st.download_button(
            "Download their configs (zip)",
            lambda: controls.configs_of(db, run.id, found),  # read at a press alone
            file_name=f"run-{run.id}-configs.zip",
            mime="application/zip",
            on_click="ignore",
            icon=":material/download:",
            disabled=all(pick.best is None for pick in found),
        )
        st.markdown(f":small[{TIED}]")


@dataclass(frozen=True)
class Scale:
    """A slider in milliseconds, and the run's budget, which its start stands for."""

    low: float
    high: float
    step: float
    start: float
    own: float

    def budget(self, position: float) -> float:
        """Returns the budget at a position; at the start the run's own, which is rarely a whole step."""
        return self.own if math.isclose(position, self.start) else position


def slider_scale(run: Run) -> Scale | None:
    """Returns a slider up to the teacher's latency, with the run's budget as one of its positions.

    Returns None until the run's budget is known in milliseconds.
    """
    own = progress.budget_of(run)
    if own is None:
        return None
    high = max(own, progress.teacher_ms(run) or 2 * own)
    step = max(_FINEST_MS, 10.0 ** math.floor(math.log10(high / 100)) / 2)
    start = max(_FINEST_MS, math.floor(own / _FINEST_MS) * _FINEST_MS)
    below = max(0, math.ceil(start / step) - 1)
    above = max(0, math.ceil((high - start) / step))
    return Scale(round(start - below * step, 2), round(start + above * step, 2), step, round(start, 2), own)
