"""The figure of systems: speed-up against retained %, with hollow marks for published students."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import systems
from kdnas_core.dashboard.model.published import SYSTEMS
from kdnas_core.dashboard.model.published import System as Published
from kdnas_core.dashboard.model.systems import Kind, System
from kdnas_core.dashboard.ui.charts import BLUE, GREEN, GREY, ORANGE, VIOLET, empty_figure

_MARKS: dict[Kind, tuple[str, str]] = {
    "student": (GREEN, "diamond"),
    "mini-KD": (BLUE, "circle"),
    "no distillation": (GREY, "x"),
    "teacher": (ORANGE, "star"),
}
_NAMES: dict[Kind, str] = {
    "student": "student",
    "mini-KD": "candidate after mini-KD",
    "no distillation": "no distillation",
    "teacher": "teacher",
}
_TICKS = [0.5, 1, 2, 3, 5, 10, 20, 50, 100]


def systems_figure(rows: Sequence[System], *, above_chance: bool = False) -> go.Figure:
    """Draws the systems; leaves out those without a measured speed-up or without an average.

    Args:
        rows: the systems.
        above_chance: whether chance is subtracted from their scores; from those published it is not.
    """
    title = "retained above chance (%)" if above_chance else "retained (%)"
    figure = empty_figure("speed-up against the teacher (log)", title, height=440)
    tasks = systems.shared_tasks(rows)
    if not above_chance:
        _add_published(figure)
    for kind in _MARKS:
        _add(figure, kind, [row for row in rows if row.kind == kind], rows, tasks)
    figure.add_hline(y=100, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", tickvals=_TICKS, ticktext=[f"{tick:g}×" for tick in _TICKS])
    return figure


def _add(
    figure: go.Figure, kind: Kind, some: Sequence[System], rows: Sequence[System], tasks: Sequence[str]
) -> None:
    points = [
        (row, row.speedup, kept)
        for row in some
        if row.speedup and (kept := systems.retained(row, rows, tasks)) is not None and math.isfinite(kept)
    ]
    if not points:
        return
    colour, symbol = _MARKS[kind]
    figure.add_scatter(
        x=[speedup for _, speedup, _ in points],
        y=[100 * kept for _, _, kept in points],
        mode="markers",
        name=_NAMES[kind],
        text=[_label(row, kept) for row, _, kept in points],
        hovertemplate="%{text}<extra></extra>",
        marker={"color": colour, "symbol": symbol, "size": 11},
    )


def _label(row: System, kept: float) -> str:
    of = f" ({'candidate ' if row.kind == 'mini-KD' else ''}{row.of})" if row.of else ""
    return (
        f"<b>{wording.plain_html(row.name)}{of}</b>, {_NAMES[row.kind]}<br>{wording.shape(row.architecture)}"
        f"<br>{wording.times(row.speedup)} · {wording.percent(kept)} retained"
    )


def _add_published(figure: go.Figure) -> None:
    known = [system for system in SYSTEMS if system.speedup and system.retained]
    figure.add_scatter(
        x=[system.speedup for system in known],
        y=[100 * (system.retained or 0.0) for system in known],
        mode="markers+text",
        name="published (GLUE test, BERT-base)",
        text=[system.name for system in known],
        textposition=[_beside(system, known) for system in known],
        textfont={"size": 10},
        cliponaxis=False,
        hovertext=[_published_label(system) for system in known],
        hovertemplate="%{hovertext}<extra></extra>",
        marker={"color": VIOLET, "symbol": "square-open", "size": 11, "line": {"width": 2}},
    )


def _beside(system: Published, known: Sequence[Published]) -> str:
    """Places the label above the best of equally fast students, and beside the others."""
    best = max(other.retained or 0.0 for other in known if other.speedup == system.speedup)
    return "top center" if system.retained == best else "middle right"


def _published_label(system: Published) -> str:
    kept = wording.percent(system.retained)
    return (
        f"<b>{system.name}</b>, published<br>{wording.times(system.speedup)} · {kept} retained on GLUE's test"
    )
