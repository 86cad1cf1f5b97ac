"""The figure of a run: latency against agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.ui.charts import BLUE, GREEN, GREY, ORANGE, VIOLET, empty_figure, marked
from kdnas_core.runs.records import Candidate

_WORST_SHOWN = -50.0  # per cent; one diverged student must not flatten all the others
_SVG_LIMIT = 1_500  # with more points, browsers need WebGL


@dataclass(frozen=True)
class _Axes:
    """The fixed limits of the axes, so that they do not jump as points arrive."""

    right: float
    bottom: float
    top: float

    def clipped(self, candidate: Candidate) -> tuple[float, float]:
        """Returns where to draw a candidate: clipped to the axes, and at the bottom if it has no loss."""
        latency, loss = candidate.point
        if candidate.latency is None and candidate.estimated_ms is not None:
            latency = candidate.estimated_ms
        return min(latency, self.right), self.bottom if math.isnan(loss) else max(_percent(loss), self.bottom)


def _percent(error: float) -> float:
    return 100 * (1 - error)


def frontier_figure(
    candidates: Sequence[Candidate],
    *,
    budget_ms: float | None,
    teacher_ms: float | None,
    yardstick: str | None = None,
    chosen: int | None = None,
) -> go.Figure:
    """Draws latency against agreement, the frontier within the budget, and the chosen candidate.

    Candidates over the run's budget have no loss and are drawn as ticks along the bottom. Those that were not
    measured are drawn there as crosses, at their estimate. Those that were stopped early are drawn at their
    agreement then.
    """
    figure = empty_figure("latency p50 (ms)", wording.criterion(candidates, yardstick), height=460)
    axes = _axes(candidates, budget_ms, teacher_ms)
    figure.update_xaxes(range=[0, axes.right * 1.02])
    figure.update_yaxes(range=[axes.bottom - 0.02 * (axes.top - axes.bottom), axes.top])
    front = progress.frontier(candidates, budget_ms)
    rows = progress.distilled(candidates)
    slow = [row for row in rows if budget_ms is not None and row.point[0] > budget_ms]
    ids = {row.id for row in (*front, *slow)}
    _add_points(
        figure, axes, _vetoed(candidates), "over the search's budget, not distilled", GREY, "line-ns-open"
    )
    _add_points(figure, axes, progress.skipped(candidates), "over budget, estimated", GREY, "x-thin-open")
    _add_points(figure, axes, progress.pruned(candidates), "stopped early", GREY, "triangle-down-open")
    _add_points(figure, axes, slow, "over this budget", GREY, "circle-open")
    _add_points(figure, axes, [row for row in rows if row.id not in ids], "within budget", BLUE, "circle")
    _add_points(figure, axes, front, "Pareto frontier", GREEN, "diamond", line=True)
    _add_best(figure, axes, candidates, budget_ms)
    _add_choice(figure, axes, [row for row in candidates if row.id == chosen])
    if budget_ms is not None:
        marked(figure, budget_ms, f"budget {wording.milliseconds(budget_ms)}", ORANGE)
    if teacher_ms is not None:
        marked(figure, teacher_ms, f"teacher {wording.milliseconds(teacher_ms)}", GREY, dash="dot", row=1)
    return figure


def _add_points(
    figure: go.Figure,
    axes: _Axes,
    rows: Sequence[Candidate],
    name: str,
    colour: str,
    symbol: str,
    *,
    line: bool = False,
) -> None:
    if not rows:  # no legend entry without points
        return
    places = [axes.clipped(row) for row in rows]
    scatter = go.Scattergl if len(rows) > _SVG_LIMIT else go.Scatter
    figure.add_trace(
        scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode="lines+markers" if line else "markers",
            name=name,
            customdata=[
                row.id for row in rows
            ],  # a flat list, since Streamlit returns anything else as a mapping
            text=[_label(row) for row in rows],
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 11 if line else 9,
                "line": {"width": 1.5, "color": colour},
            },
            line={"color": colour, "width": 2},
            error_y=_error_bars(rows, colour),
            unselected={"marker": {"opacity": 1}},
        )
    )


def _error_bars(rows: Sequence[Candidate], colour: str) -> dict[str, object]:
    """The standard error of each loss over texts; none for scores, or if no row has one."""
    errors = [0.0 if row.proxy_score is not None else 100 * (row.loss_se or 0.0) for row in rows]
    return {"array": errors, "visible": any(errors), "thickness": 1, "width": 3, "color": colour}


def _add_best(
    figure: go.Figure, axes: _Axes, candidates: Sequence[Candidate], budget_ms: float | None
) -> None:
    best = None if budget_ms is None else progress.best_within(candidates, budget_ms)
    if best is not None:
        _add_points(figure, axes, [best], "pick within budget", GREEN, "star")
        figure.data[-1].marker.size = 17


def _add_choice(figure: go.Figure, axes: _Axes, rows: Sequence[Candidate]) -> None:
    rows = [row for row in rows if row.latency is not None or row.estimated_ms is not None]
    if rows:
        _add_points(figure, axes, rows, "your choice", VIOLET, "circle-open")
        figure.data[-1].marker.update(size=20, line={"width": 3, "color": VIOLET})


def _axes(candidates: Sequence[Candidate], budget_ms: float | None, teacher_ms: float | None) -> _Axes:
    points = [row.point for row in progress.distilled(candidates)]
    heights = [max(_percent(loss), _WORST_SHOWN) for _, loss in points] or [0.0, 100.0]
    right = max(
        [value for value in (budget_ms, teacher_ms) if value is not None] or [1.0, *(x for x, _ in points)]
    )
    top = math.ceil((max(heights) + 2) / 5) * 5
    return _Axes(1.15 * right, min(top - 10, math.floor((min(heights) - 2) / 5) * 5), top)


def _vetoed(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [row for row in candidates if row.state == "over_budget" and row.latency is not None]


def _label(row: Candidate) -> str:
    latency, error = row.point
    cost = f"{wording.milliseconds(latency)} ({wording.times(progress.speedup_of(row))})"
    if row.latency is None:
        cost = f"{wording.estimated(row.estimated_ms)}, not measured"
    judged = "not distilled" if math.isnan(error) else wording.judged(row)
    if row.stopped is not None:
        judged = f"{row.stopped}, {judged} then"
    return f"<b>Candidate {row.id}</b><br>{wording.shape(row.architecture)}<br>{cost} · {judged}"
