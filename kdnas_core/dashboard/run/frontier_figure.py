"""The figure of a run: what its students cost against how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.knobs import KNOBS
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.ui.charts import BLUE, GREEN, GREY, ORANGE, VIOLET, empty_figure, marked
from kdnas_core.runs.measured import Measured
from kdnas_core.runs.records import Candidate
from kdnas_core.search import pareto

HEIGHT = 460
_WORST_SHOWN = -50.0  # per cent; one diverged student must not flatten all the others
_SVG_LIMIT = 1_500  # with more points, browsers need WebGL
_CELLS = (80, 40)  # of the plot: of several points in one, that would hide each other, one is drawn
MANY = 1_000  # points of one kind, from which on they are thinned so


@dataclass(frozen=True)
class Cost:
    """What can stand on the horizontal axis.

    Attributes:
        title: of the axis.
        of: its value of a candidate, NaN if unknown.
    """

    title: str
    of: Callable[[Candidate], float]


def _latency(row: Candidate) -> float:
    return math.nan if row.latency is None else row.latency.p50


def _p95(row: Candidate) -> float:
    return math.nan if row.latency is None else row.latency.p95


COSTS = {
    "p50": Cost("latency p50 (ms)", _latency),
    "p95": Cost("latency p95 (ms)", _p95),
    "parameters": Cost("parameters (millions)", lambda row: (row.parameters or math.nan) / 1e6),
    "size": Cost("size in float32 (MB)", lambda row: 4 * (row.parameters or math.nan) / 1e6),
    "flops": Cost("FLOPs of a sequence (billions)", lambda row: (row.flops or math.nan) / 1e9),
}
VALUES = {"agreement": "as students are compared", "retained": "retained on tasks (%)"}
KINDS = ("over budget", "stopped early", "failed")  # that can be left out


@dataclass(frozen=True)
class View:
    """How a run is drawn.

    Attributes:
        cost: the horizontal axis, of `COSTS`.
        is_log: whether it is logarithmic.
        knob: by which points are coloured, of `KNOBS`; None for the colours of their kinds.
        without: kinds of points that are left out, of `KINDS`.
        value: the vertical axis, of `VALUES`.
    """

    cost: str = "p50"
    is_log: bool = False
    knob: str | None = None
    without: tuple[str, ...] = ()
    value: str = "agreement"

    @property
    def is_latency(self) -> bool:
        """Whether its horizontal axis shows what budgets are for."""
        return self.cost in ("p50", "p95")


@dataclass(frozen=True)
class _Axes:
    """The fixed limits of the axes, so that they do not jump as points arrive."""

    view: View
    left: float
    right: float
    bottom: float
    top: float

    def clipped(self, rows: Sequence[Candidate]) -> NDArray[np.float64]:
        """Returns where to draw candidates: clipped to the axes, and at the bottom those without a loss.

        (rows, 2), NaN where a cost is not known.
        """
        costs, losses = _costs(rows, self.view), _errors(rows)
        if self.view.is_latency:
            for place in np.flatnonzero(np.isnan(costs)).tolist():
                costs[place] = rows[place].estimated_ms or math.nan
        if self.view.is_log:
            costs = np.maximum(costs, self.left)
        heights = np.where(np.isnan(losses), self.bottom, np.maximum(_percent(losses), self.bottom))
        return np.stack([np.minimum(costs, self.right), heights], axis=1)

    @property
    def horizontal(self) -> list[float]:
        """The range of the horizontal axis, as Plotly has it."""
        if self.view.is_log:
            return [math.log10(self.left * 0.9), math.log10(self.right * 1.05)]
        return [0, self.right * 1.02]


@dataclass(frozen=True)
class _Style:
    """How points of one kind are drawn."""

    name: str
    colour: str
    symbol: str
    size: float = 9
    is_line: bool = False
    edge: float = 1.5
    knob: str | None = None


def _percent(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 * (1 - errors)


def _costs(rows: Sequence[Candidate], view: View) -> NDArray[np.float64]:
    if isinstance(rows, Measured) and view.is_latency:
        return rows.p95.copy() if view.cost == "p95" else rows.p50.copy()
    return np.array([COSTS[view.cost].of(row) for row in rows], dtype=np.float64)


def _errors(rows: Sequence[Candidate]) -> NDArray[np.float64]:
    if isinstance(rows, Measured):
        return rows.errors
    return np.array([row.point[1] for row in rows], dtype=np.float64)


def frontier_figure(
    found: Findings,
    *,
    teacher_ms: float | None,
    yardstick: str | None = None,
    chosen: Candidate | None = None,
    view: View = View(),
) -> go.Figure:
    """Draws cost against agreement, the frontier within the budget, and the chosen candidate.

    Candidates over the run's budget have no loss and are drawn as ticks along the bottom. Those that were not
    measured are drawn there as crosses, at their estimate. Those that were stopped early are drawn at their
    agreement then, those that failed as crosses along the bottom.
    """
    figure = empty_figure(
        COSTS[view.cost].title, wording.criterion([*found.within, *found.over], yardstick), height=HEIGHT
    )
    axes = _axes(found, teacher_ms, view)
    figure.update_xaxes(range=axes.horizontal, type="log" if view.is_log else "linear")
    figure.update_yaxes(range=[axes.bottom - 0.02 * (axes.top - axes.bottom), axes.top])
    front = _frontier(found, view)
    on_it = {row.id for row in front}
    over = found.states.get("over_budget", ())
    if "over budget" not in view.without:
        measured = [row for row in over if row.latency is not None]
        style = _Style("over the search's budget, not distilled", GREY, "line-ns-open")
        _add_points(figure, axes, measured, style)
        style = _Style("over budget, estimated", GREY, "x-thin-open")
        _add_points(figure, axes, progress.skipped(over), style)
    if "failed" not in view.without:
        _add_points(figure, axes, found.states.get("failed", ()), _Style("failed", ORANGE, "x-open"))
    if "stopped early" not in view.without:
        style = _Style("stopped early", GREY, "triangle-down-open")
        _add_points(figure, axes, found.states.get("pruned", ()), style)
    if "over budget" not in view.without:
        _add_points(figure, axes, found.over, _Style("over this budget", GREY, "circle-open", knob=view.knob))
    others = found.within.where(np.array([row.id not in on_it for row in found.within], dtype=bool))
    _add_points(figure, axes, others, _Style("within budget", BLUE, "circle", knob=view.knob))
    _add_points(
        figure, axes, front, _Style("Pareto frontier", GREEN, "diamond", 11, is_line=True, knob=view.knob)
    )
    if found.pick is not None:
        _add_points(figure, axes, [found.pick], _Style("pick within budget", GREEN, "star", 17))
    _add_choice(figure, axes, [] if chosen is None else [chosen])
    _add_lines(figure, found.limit, teacher_ms, view)
    return figure


def behind(figure: go.Figure) -> int:
    """Returns how many points are not drawn, since others are at the same place."""
    return int((figure.layout.meta or {}).get("behind", 0))


def _frontier(found: Findings, view: View) -> Sequence[Candidate]:
    """The frontier of what is drawn: of the axis of its cost, among what is within the budget."""
    if view.cost == "p50":
        return found.frontier
    points = np.stack([_costs(found.within, view), found.within.errors], axis=1)
    return [found.within[index] for index in pareto.frontier(points)]


def _add_points(figure: go.Figure, axes: _Axes, rows: Sequence[Candidate], style: _Style) -> None:
    places = axes.clipped(rows)
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    if not style.is_line:
        shown = _thinned(known, places, axes)
        figure.update_layout(meta={"behind": behind(figure) + len(known) - len(shown)})
        known = shown
    if not len(known):  # no legend entry without points
        return
    rows, places = [rows[index] for index in known.tolist()], places[known]
    scatter = go.Scattergl if len(rows) > _SVG_LIMIT else go.Scatter
    figure.add_trace(
        scatter(
            # rounded, since each update sends all of them
            x=[float(f"{x:.6g}") for x in places[:, 0].tolist()],
            y=[float(f"{y:.6g}") for y in places[:, 1].tolist()],
            mode="lines+markers" if style.is_line else "markers",
            name=style.name,
            uid=style.name,  # a trace that was hidden stays hidden when another comes before it
            customdata=[row.id for row in rows],  # a flat list: plain numbers in an event
            text=[_label(row) for row in rows],
            hovertemplate="<b>Candidate %{customdata}</b><br>%{text}<extra></extra>",
            marker={
                "color": style.colour,
                "symbol": style.symbol,
                "size": style.size,
                "line": {"width": style.edge, "color": style.colour},
            },
            line={"color": style.colour, "width": 2},
            error_y=_error_bars(rows, style.colour),
            # a box is answered by the table; what is outside it stays as it was
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0.35}},
        )
    )
    if style.knob is not None:
        _colour(figure, rows, style.knob)


def _thinned(known: NDArray[np.intp], places: NDArray[np.float64], axes: _Axes) -> NDArray[np.intp]:
    """Of many points, the last one in each cell of the plot, which is drawn above the others."""
    if len(known) <= MANY:
        return known
    points = places[known]
    if axes.view.is_log:
        points[:, 0] = np.log(points[:, 0])
        low = np.array([math.log(axes.left), axes.bottom])
        high = np.array([math.log(axes.right), axes.top])
    else:
        low, high = np.array([0.0, axes.bottom]), np.array([axes.right, axes.top])
    across, up = np.floor((points - low) / (high - low) * _CELLS).astype(int).T
    _, first = np.unique((across * _CELLS[1] + up)[::-1], return_index=True)
    return known[np.sort(len(known) - 1 - first)]


def _colour(figure: go.Figure, rows: Sequence[Candidate], knob: str) -> None:
    """Colours the points of the last trace by a knob, on a scale that all traces share."""
    of = KNOBS[knob]
    figure.data[-1].marker.update(color=[of(row) for row in rows], coloraxis="coloraxis", line={"width": 0})
    figure.update_layout(
        coloraxis={
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": knob}, "thickness": 10, "len": 0.8},
        }
    )


def _error_bars(rows: Sequence[Candidate], colour: str) -> dict[str, object]:
    """The standard error of each loss over texts; none for scores, or if no row has one."""
    errors = [0.0 if row.proxy_score is not None else round(100 * (row.loss_se or 0.0), 2) for row in rows]
    return {"array": errors, "visible": any(errors), "thickness": 1, "width": 3, "color": colour}


def _add_choice(figure: go.Figure, axes: _Axes, rows: Sequence[Candidate]) -> None:
    rows = [row for row in rows if row.latency is not None or row.estimated_ms is not None]
    if rows:
        _add_points(figure, axes, rows, _Style("your choice", VIOLET, "circle-open", 20, edge=3))


def _add_lines(figure: go.Figure, limit: Limit | None, teacher_ms: float | None, view: View) -> None:
    """Marks the budget on the axis of its reading, and the teacher on that of its own, p50."""
    if limit is not None and view.cost == limit.reading:
        marked(figure, limit.ms, f"budget {wording.milliseconds(limit.ms)}", ORANGE)
    if teacher_ms is not None and view.cost == "p50":
        marked(figure, teacher_ms, f"teacher {wording.milliseconds(teacher_ms)}", GREY, dash="dot", row=1)


def _axes(found: Findings, teacher_ms: float | None, view: View) -> _Axes:
    heights = np.maximum(_percent(found.measured.errors), _WORST_SHOWN)
    lowest, highest = (heights.min(), heights.max()) if len(heights) else (0.0, 100.0)
    top = math.ceil((highest + 2) / 5) * 5
    bottom = min(top - 10, math.floor((lowest - 2) / 5) * 5)
    costs = _costs(found.measured, view)
    costs = costs[np.isfinite(costs) & (costs > 0)]
    left, right = (float(costs.min()), float(costs.max())) if len(costs) else (0.1, 0.0)
    if not view.is_latency:
        return _Axes(view, left, 1.05 * right or 1.05, bottom, top)
    # the range is that of the data, and stays while a budget moves within it; a teacher far beyond it would
    # leave the students little room
    known = [] if found.limit is None or view.cost != found.limit.reading else [found.limit.ms]
    reach = max([1.15 * right, *(1.05 * value for value in known)])
    if not len(costs) or (teacher_ms is not None and teacher_ms <= 1.5 * reach):
        reach = max(reach, 1.15 * (teacher_ms or 1.0))
    return _Axes(view, min([left, *known]), reach, bottom, top)


def _label(row: Candidate) -> str:
    latency, error = row.point
    cost = f"{wording.milliseconds(latency)} ({wording.times(progress.speedup_of(row))})"
    if row.latency is None:
        cost = f"{wording.estimated(row.estimated_ms)}, not measured"
    judged = "failed" if row.state == "failed" else "not distilled"
    if not math.isnan(error):
        judged = wording.judged(row)
    if row.stopped is not None:
        judged = f"{row.stopped}, {judged} then"
    return f"{wording.short_shape(row.architecture)}<br>{cost} · {judged}"
