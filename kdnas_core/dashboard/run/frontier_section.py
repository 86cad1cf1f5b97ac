"""The part of a run's page with its frontier: the chart, and how it is drawn."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress, systems
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.knobs import KNOBS
from kdnas_core.dashboard.read import live_students
from kdnas_core.dashboard.read.live import Snapshot, id_in_address
from kdnas_core.dashboard.run import frontier_figure
from kdnas_core.dashboard.run.frontier_figure import COSTS, KINDS, VALUES, View
from kdnas_core.dashboard.ui import live_chart, systems_figure
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.dashboard.ui.live_chart import Zoom
from kdnas_core.errors import BadInput
from kdnas_core.runs.records import Candidate

CHOSEN, ZOOM, VALUE = "candidate", "zoom", "y"  # in the address


def show(db: Path, snapshot: Snapshot, found: Findings, chosen: Candidate | None, view: View) -> None:
    """Draws the chart, and under it how latencies were measured."""
    if view.value == "retained":
        _scored(db, snapshot)
    else:
        _frontier(snapshot, found, chosen, view)


def _scored(db: Path, snapshot: Snapshot) -> None:
    """Draws what was scored on tasks, with the teacher and the published students."""
    views = [view for view in live_students.read_systems(db) if view.run.id == snapshot.run.id]
    groups = systems.groups(views)
    if not groups:
        st.info("Nothing of this run has been scored on tasks. Distil a student in full, and score it.")
        return
    group, some = next(iter(groups.items()))
    rows = systems.systems_of(some)
    tasks = systems.shared_tasks(rows)
    if not tasks:
        st.info("What was scored of this run shares no task with fine-tuning; see the leaderboard.")
        return
    st.plotly_chart(
        systems_figure.systems_figure(rows),
        key=f"scored_{snapshot.run.id}",
        config=CONFIG,
        alt=f"Speed-up against retained share of the teacher's average on tasks, of {len(rows)} models",
    )
    more = "; scored in other ways too, see the leaderboard" if len(groups) > 1 else ""
    named = wording.plain(", ".join(map(wording.task, tasks)))
    st.markdown(f":small[{wording.plain(group.title)}; average over {named}{more}]")


def _frontier(snapshot: Snapshot, found: Findings, chosen: Candidate | None, view: View) -> None:
    run = snapshot.run
    figure = frontier_figure.frontier_figure(
        found,
        teacher_ms=progress.teacher_ms(run),
        yardstick=run.spec.objective.yardstick,
        chosen=chosen,
        view=view,
    )
    live_chart.show(
        figure,
        key=f"frontier_{run.id}",
        name=f"run-{run.id}-frontier",
        alt=f"Latency against {figure.layout.yaxis.title.text};"
        f" {len(found.frontier)} students on the Pareto frontier within the budget",
        view=f"{run.id} {view.cost} {view.is_log}",
        zoom=_zoom(),
        on_zoom=_zoomed,
        on_click=choose,
        is_boxed=bool(boxed(run.id)),
        on_box=lambda ids: _box(run.id, ids),
    )
    told = [] if run.teacher is None else [f"Measured on {wording.protocol(run.teacher.latency)}"]
    if behind := frontier_figure.behind(figure):
        told.append(f"{behind:,} points are not drawn, since others are at the same place")
    st.markdown(f":small[{' · '.join(told)}]")


def view() -> View:
    """Draws the button with how the chart is drawn, and returns it."""
    with st.popover("Axes and points", icon=":material/tune:"):
        value = st.selectbox(
            "Vertical axis", list(VALUES), format_func=VALUES.__getitem__, key=VALUE, bind="query-params"
        )
        fixed = value == "retained"  # its figure has an axis of its own
        cost = st.selectbox(
            "Horizontal axis",
            list(COSTS),
            format_func=lambda name: COSTS[name].title,
            key="x",
            bind="query-params",
            on_change=_zoomed,
            args=(None,),
            disabled=fixed,
        )
        is_log = st.toggle(
            "Logarithmic", key="log", bind="query-params", on_change=_zoomed, args=(None,), disabled=fixed
        )
        knob = st.selectbox(
            "Colour by",
            list(KNOBS),
            index=None,
            placeholder="kind",
            key="colour",
            bind="query-params",
            disabled=fixed,
        )
        without = st.pills(
            "Leave out", KINDS, selection_mode="multi", key="without", bind="query-params", disabled=fixed
        )
    return View(cost or "p50", is_log, knob, tuple(without), value or "agreement")


def reset() -> None:
    """Takes back the vertical axis that was chosen on the page of another run, which may have no scores."""
    st.session_state[VALUE] = next(iter(VALUES))


def chosen_of(snapshot: Snapshot) -> Candidate | None:
    """Returns the candidate that the address names, if the run has it."""
    try:
        wanted = id_in_address(st.query_params.get(CHOSEN), "candidate")
    except BadInput:
        return None
    return next((row for row in snapshot.candidates if row.id == wanted), None) if wanted else None


def choose(candidate: int) -> None:
    """Names a candidate in the address."""
    st.query_params[CHOSEN] = str(candidate)


def clear_choice() -> None:
    """Names no candidate in the address."""
    st.query_params.pop(CHOSEN, None)


def boxed(run: int) -> list[int]:
    """Returns the candidates in the box that was drawn; none if there is no box."""
    ids: list[int] = st.session_state.get(_box_key(run), [])
    return ids


def unbox(run: int) -> None:
    """Forgets the box."""
    st.session_state.pop(_box_key(run), None)


def _box(run: int, ids: list[int]) -> None:
    st.session_state[_box_key(run)] = ids


def _box_key(run: int) -> str:
    return f"boxed_{run}"


def _zoom() -> Zoom | None:
    text = st.query_params.get(ZOOM, "")
    try:
        return live_chart.as_zoom([float(part) for part in text.split(",")])
    except ValueError:
        return None


def _zoomed(zoom: Zoom | None) -> None:
    if zoom is None:
        st.query_params.pop(ZOOM, None)
    else:
        st.query_params[ZOOM] = ",".join(f"{value:.5g}" for value in zoom)
