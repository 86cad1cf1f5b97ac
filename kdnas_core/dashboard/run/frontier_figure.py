"""The figure of a run: what its students cost against how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.knobs import KNOBS
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.ui.charts import BLUE, GREEN, GREY, ORANGE, VIOLET, empty_figure, marked
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

    def clipped(self, candidate: Candidate) -> tuple[float, float]:
        """Returns where to draw a candidate: clipped to the axes, and at the bottom if it has no loss."""
        cost, loss = COSTS[self.view.cost].of(candidate), candidate.point[1]
        if self.view.is_latency and candidate.latency is None and candidate.estimated_ms is not None:
            cost = candidate.estimated_ms
        if self.view.is_log:
            cost = max(cost, self.left)
        return min(cost, self.right), self.bottom if math.isnan(loss) else max(_percent(loss), self.bottom)

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


def _percent(error: float) -> float:
    return 100 * (1 - error)


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
    others = [row for row in found.within if row.id not in on_it]
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
    cost = COSTS[view.cost].of
    points = [(cost(row), row.point[1]) for row in found.within]
    return [found.within[index] for index in pareto.frontier(points)]


def _add_points(figure: go.Figure, axes: _Axes, rows: Sequence[Candidate], style: _Style) -> None:
    places = [axes.clipped(row) for row in rows]
    known = [index for index, place in enumerate(places) if all(map(math.isfinite, place))]
    if not style.is_line:
        shown = _thinned(known, places, axes)
        figure.update_layout(meta={"behind": behind(figure) + len(known) - len(shown)})
        known = shown
    if not known:  # no legend entry without points
        return
    rows, places = [rows[index] for index in known], [places[index] for index in known]
    scatter = go.Scattergl if len(rows) > _SVG_LIMIT else go.Scatter
    figure.add_trace(
        scatter(
            # rounded, since each update sends all of them
            x=[float(f"{x:.6g}") for x, _ in places],
            y=[float(f"{y:.6g}") for _, y in places],
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


def _thinned(known: list[int], places: Sequence[tuple[float, float]], axes: _Axes) -> list[int]:
    """Of many points, the last one in each cell of the plot, which is drawn above the others."""
    if len(known) <= MANY:
        return known
    points = np.array([places[index] for index in known])
    if axes.view.is_log:
        points[:, 0] = np.log(points[:, 0])
        low = np.array([math.log(axes.left), axes.bottom])
        high = np.array([math.log(axes.right), axes.top])
    else:
        low, high = np.array([0.0, axes.bottom]), np.array([axes.right, axes.top])
    across, up = np.floor((points - low) / (high - low) * _CELLS).astype(int).T
    _, first = np.unique((across * _CELLS[1] + up)[::-1], return_index=True)
    return [known[len(known) - 1 - index] for index in sorted(first, reverse=True)]


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
    rows = [*found.within, *found.over]
    heights = [max(_percent(row.point[1]), _WORST_SHOWN) for row in rows] or [0.0, 100.0]
    top = math.ceil((max(heights) + 2) / 5) * 5
    bottom = min(top - 10, math.floor((min(heights) - 2) / 5) * 5)
    costs = [value for value in map(COSTS[view.cost].of, rows) if math.isfinite(value) and value > 0]
    left = min(costs, default=0.1)
    if not view.is_latency:
        return _Axes(view, left, 1.05 * max(costs, default=1.0), bottom, top)
    # the range is that of the data, and stays while a budget moves within it; a teacher far beyond it would
    # leave the students little room
    known = [] if found.limit is None or view.cost != found.limit.reading else [found.limit.ms]
    reach = max([*(1.15 * cost for cost in costs), *(1.05 * value for value in known)], default=0.0)
    if not costs or (teacher_ms is not None and teacher_ms <= 1.5 * reach):
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
