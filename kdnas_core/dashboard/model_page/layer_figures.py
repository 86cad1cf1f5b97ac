"""The figures of a student: its layer mapping, its losses and its latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.layer_story import Profile, Standing
from kdnas_core.dashboard.model.layer_terms import Depths, by_step, present
from kdnas_core.dashboard.ui.charts import (
    BLUE,
    CATEGORICAL,
    GREEN,
    GREY,
    ORANGE,
    VIOLET,
    empty_figure,
    marked,
)
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.records import LayerLoss

# from 0, learnt, to 1, no better than the mean of the target
# all colours are light enough for dark numbers
_SCALE = [[0.0, "#35b39c"], [0.5, "#93d9cb"], [1.0, "#eef1f6"]]
_ALIKE = [[0.0, "#eef1f6"], [0.5, "#8fb8f5"], [1.0, "#1d4ed8"]]
_ON_SCALE = "#16202e"
_GROUND = "rgba(124, 138, 165, 0.13)"
_MANY_LINES = 12  # the legend of more would push the plot off a phone's screen
_DASHES = ("solid", "dot", "dash", "dashdot")

_ROW = 24  # pixels
_NUMBERED = 40  # more bars than this leave no room for their numbers


def final_losses(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Returns the losses of the last evaluation."""
    last = max((loss.step for loss in losses), default=0)
    return [loss for loss in losses if loss.step == last]


def mapping(losses: Sequence[LayerLoss]) -> dict[int, list[int]]:
    """Returns the teacher layers that each student layer learns from."""
    targets: dict[int, set[int]] = {}
    for loss in losses:
        targets.setdefault(loss.layer, set()).add(loss.teacher_layer)
    return {layer: sorted(targets[layer]) for layer in sorted(targets)}


def mapping_words(losses: Sequence[LayerLoss], depths: Depths) -> str:
    """Describes the layer mapping, for example "1 ← 2, 4 · 2 ← 5"."""
    pairs = mapping(losses).items()
    return " · ".join(
        f"{wording.layer(layer, depths.student)} ← "
        + ", ".join(wording.layer(target, depths.teacher) for target in targets)
        for layer, targets in pairs
    )


def mapping_figure(losses: Sequence[LayerLoss], depths: Depths, *, normalised: bool = True) -> go.Figure:
    """Draws the final held-out loss by student and teacher layer, for the pairs of the layer mapping.

    The colour scale ends at 1 for a normalised term, else at the largest loss of all evaluations, so that
    colours far from that end mean that much was learnt.
    """
    final = {(loss.layer, loss.teacher_layer): loss.loss for loss in final_losses(losses)}
    students = sorted({layer for layer, _ in final})
    teachers = sorted({*range(1, depths.teacher + 1), *(layer for _, layer in final)})
    cells = [[_finite(final.get((student, teacher))) for teacher in teachers] for student in students]
    figure = empty_figure("teacher layer", "student layer", height=max(340, 100 + 34 * len(students)))
    axes = {
        "x": [wording.layer(layer, depths.teacher) for layer in teachers],
        "y": [wording.layer(layer, depths.student) for layer in students],
        "xgap": 2,
        "ygap": 2,
    }
    figure.add_heatmap(  # the background of pairs outside the mapping
        z=[[0] * len(teachers) for _ in students],
        colorscale=[[0, _GROUND], [1, _GROUND]],
        showscale=False,
        hoverinfo="skip",
        **axes,
    )
    figure.add_heatmap(
        z=cells,
        text=[[_in_cell(cell, normalised) for cell in row] for row in cells],
        texttemplate="%{text}",
        textfont={"color": _ON_SCALE},
        zmin=0,
        zmax=1 if normalised else _largest(losses),
        colorscale=_SCALE,
        colorbar={"title": {"text": "loss"}, "thickness": 12},
        hovertemplate="student layer %{y} from teacher layer %{x}: loss %{z:.4g}<extra></extra>",
        **axes,
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return figure


def standing_figure(rows: Sequence[Standing], depth: int, beside: Profile | None = None) -> go.Figure:
    """Draws the error of each layer in three parts, the first layer on top, and where it began.

    Args:
        rows: the layers.
        depth: M, of which they are.
        beside: of another student, which is drawn at the same relative depths.
    """
    figure = empty_figure("error", "layer", height=max(220, 110 + _ROW * len(rows)))
    names = [str(row.layer) for row in rows]
    floors = [min(row.floor or 0.0, row.final) for row in rows]
    parts = (
        ("beyond its width", floors, GREY),
        ("not learnt", [row.final - floor for row, floor in zip(rows, floors, strict=True)], ORANGE),
        ("learnt here", [max(0.0, row.start - row.final) for row in rows], GREEN),
    )
    for name, values, colour in parts:
        figure.add_bar(
            x=values,
            y=names,
            name=name,
            orientation="h",
            marker={"color": colour},
            hovertemplate=f"layer %{{y}}: %{{x:.3f}} {name}<extra></extra>",
        )
    figure.add_scatter(
        x=[row.final for row in rows],
        y=names,
        mode="markers",
        name="error now",
        marker={"symbol": "line-ns-open", "size": 14, "color": VIOLET, "line": {"width": 3}},
        hovertemplate="layer %{y}: error %{x:.3f}<extra></extra>",
    )
    others = [] if beside is None else [_finite(beside.at(row.layer, depth)) for row in rows]
    if beside is not None:
        figure.add_scatter(
            x=others,
            y=names,
            mode="markers",
            name=wording.plain_html(beside.name),
            marker={"symbol": "diamond-open", "size": 10, "color": BLUE, "line": {"width": 2}},
            hovertemplate="at the depth of layer %{y}: error %{x:.3f}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.25)
    own = [value for row in rows for value in (row.start, row.final)]
    figure.update_xaxes(range=[0, 1.02 * max(1.0, *own, *(value for value in others if value is not None))])
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def similarity_figure(student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]]) -> go.Figure:
    """Draws the CKA of student layers with teacher layers, beside that of the teacher's own."""
    figure = make_subplots(
        cols=2, horizontal_spacing=0.08, subplot_titles=("student × teacher", "teacher × teacher")
    )
    for column, (name, cells) in enumerate((("student", student), ("teacher", teacher)), start=1):
        figure.add_heatmap(
            z=[list(row) for row in cells],
            x=[_short(layer) for layer in range(len(teacher))],
            y=[_short(layer) for layer in range(len(cells))],
            zmin=0,
            zmax=1,
            colorscale=_ALIKE,
            showscale=column == 2,
            colorbar={"title": {"text": "CKA"}, "thickness": 10},
            hovertemplate=f"{name} layer %{{y}}, teacher layer %{{x}}: CKA %{{z:.2f}}<extra></extra>",
            row=1,
            col=column,
        )
        figure.update_yaxes(type="category", autorange="reversed", automargin=True, row=1, col=column)
        figure.update_xaxes(title="teacher layer", type="category", automargin=True, row=1, col=column)
    figure.update_layout(height=330, margin={"l": 8, "r": 8, "t": 28, "b": 8})
    figure.update_annotations(font={"size": 13})
    return figure


def _short(layer: int) -> str:
    """A layer's number; the embedding has little room."""
    return str(layer) if layer else "emb"


def curves_figure(losses: Sequence[LayerLoss], depths: Depths, training: str = "mini-KD") -> go.Figure:
    """Draws the held-out loss over the steps of a training, a line for each pair of the layer mapping."""
    figure = empty_figure(f"step of {training}", "held-out loss", height=340)
    pairs = sorted({(loss.layer, loss.teacher_layer) for loss in losses})
    targets = mapping(losses)
    for layer, teacher in pairs:
        rows = [loss for loss in losses if (loss.layer, loss.teacher_layer) == (layer, teacher)]
        student_name, teacher_name = depths.names(layer, teacher)
        figure.add_scatter(
            x=[row.step for row in rows],
            y=[_finite(row.loss) for row in rows],
            mode="lines+markers",
            name=f"{student_name} ← {teacher_name}",
            line={
                "color": CATEGORICAL[(layer - 1) % len(CATEGORICAL)],
                "dash": _DASHES[targets[layer].index(teacher) % len(_DASHES)],
            },
            marker={"size": 5},
            hovertemplate=f"student {student_name} ← teacher {teacher_name},"
            " step %{x}: %{y:.4g}<extra></extra>",
        )
    figure.update_layout(showlegend=len(pairs) <= _MANY_LINES)
    figure.update_yaxes(rangemode="tozero")
    return figure


def terms_figure(losses: Sequence[LayerLoss], training: str) -> go.Figure:
    """Draws the mean over layers of each term over the steps of a training, each on a scale of its own."""
    terms = present(losses)
    columns = min(3, len(terms))
    rows = -(-len(terms) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[wording.term(term) for term in terms], horizontal_spacing=0.09
    )
    for place, term in enumerate(terms):
        means = by_step(losses, term)
        where = {"row": place // columns + 1, "col": place % columns + 1}
        figure.add_scatter(
            x=list(means),
            y=[_finite(value) for value in means.values()],
            mode="lines+markers",
            line={"color": BLUE},
            marker={"size": 4},
            hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
            **where,
        )
        figure.update_yaxes(rangemode="tozero", automargin=True, **where)
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(title={"text": f"step of {training}"}, row=rows)
    return figure.update_layout(
        height=70 + 150 * rows, showlegend=False, margin={"l": 8, "r": 8, "t": 28, "b": 8}
    )


def latency_figure(reading: LatencyReading) -> go.Figure:
    """Draws the distribution of the timed runs, with p50 and p95."""
    figure = empty_figure("latency (ms)", "timed runs")
    figure.add_histogram(
        x=[sample for sample in reading.samples if math.isfinite(sample)],
        nbinsx=30,
        marker={"color": BLUE},
        hovertemplate="%{x} ms: %{y} runs<extra></extra>",
    )
    marked(figure, reading.p50, f"p50 {wording.milliseconds(reading.p50)}", ORANGE)
    marked(figure, reading.p95, f"p95 {wording.milliseconds(reading.p95)}", GREY, dash="dot", row=1)
    figure.update_layout(bargap=0.05)
    return figure


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _in_cell(loss: float | None, normalised: bool) -> str:
    if loss is None:
        return ""
    return f"{loss:.2f}" if normalised else wording.significant(loss)


def _largest(losses: Sequence[LayerLoss]) -> float:
    return max((loss.loss for loss in losses if math.isfinite(loss.loss)), default=0.0) or 1.0


def by_loss(languages: Mapping[str, float]) -> list[tuple[str, float]]:
    """Sorts the languages by loss, the worst first; one without a finite loss is the worst."""
    return sorted(languages.items(), key=lambda pair: (math.isfinite(pair[1]), -pair[1], pair[0]))


def language_figure(languages: Mapping[str, float]) -> go.Figure:
    """Draws the final held-out loss of each language as a bar, the worst on top."""
    rows = by_loss(languages)
    figure = empty_figure("held-out loss", "", height=max(220, 70 + _ROW * len(rows)))
    figure.add_bar(
        x=[loss if math.isfinite(loss) else None for _, loss in rows],
        y=[name for name, _ in rows],
        text=[wording.significant(loss) for _, loss in rows],
        textposition="outside" if len(rows) <= _NUMBERED else "none",
        cliponaxis=False,
        orientation="h",
        marker={"color": BLUE},
        hovertemplate="%{y}: loss %{x:.4g}<extra></extra>",
    )
    largest = max((loss for _, loss in rows if math.isfinite(loss)), default=0.0)
    figure.update_xaxes(range=[0, 1.15 * largest or 1.0])  # room for the number beside the longest bar
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, dtick=1)
    figure.update_layout(bargap=0.3)
    return figure


def alt(languages: Mapping[str, float]) -> str:
    """Returns the alternative text of the figure."""
    rows = by_loss(languages)
    worst, best = (f"{name} {wording.significant(loss)}" for name, loss in (rows[0], rows[-1]))
    return f"Final held-out loss of {len(rows)} languages, from {worst} to {best}"
