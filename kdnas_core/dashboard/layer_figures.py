"""The figures of a candidate: which teacher layer each of its layers learns, how well, and how fast it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.charts import BLUE, CATEGORICAL, GREY, ORANGE, empty_figure, marked
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.runs.rows import LayerLoss

# from learnt (0) to no better than the mean of the target (1)
# light enough throughout for the dark numbers on it
_SCALE = [[0.0, "#35b39c"], [0.5, "#93d9cb"], [1.0, "#eef1f6"]]
_ON_SCALE = "#16202e"
_GROUND = "rgba(124, 138, 165, 0.13)"
_MANY_LINES = 12  # more would push the plot off a phone's screen with their legend
_DASHES = ("solid", "dot", "dash", "dashdot")


def final_losses(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """The losses of the last evaluation."""
    last = max((loss.step for loss in losses), default=0)
    return [loss for loss in losses if loss.step == last]


def mapping(losses: Sequence[LayerLoss]) -> dict[int, list[int]]:
    """Which teacher layers each student layer learns from."""
    targets: dict[int, set[int]] = {}
    for loss in losses:
        targets.setdefault(loss.layer, set()).add(loss.teacher_layer)
    return {layer: sorted(targets[layer]) for layer in sorted(targets)}


def mapping_figure(losses: Sequence[LayerLoss], teacher_layers: int) -> go.Figure:
    """Final held-out loss by student and teacher layer; a pair that is not in the mapping has no number."""
    final = {(loss.layer, loss.teacher_layer): loss.loss for loss in final_losses(losses)}
    students = sorted({layer for layer, _ in final})
    teachers = sorted({*range(1, teacher_layers + 1), *(layer for _, layer in final)})
    cells = [[_finite(final.get((student, teacher))) for teacher in teachers] for student in students]
    figure = empty_figure("teacher layer", "student layer", height=max(340, 100 + 34 * len(students)))
    figure.add_heatmap(  # a ground that shows the pairs that are not in the mapping
        x=[str(layer) for layer in teachers],
        y=[str(layer) for layer in students],
        z=[[0] * len(teachers) for _ in students],
        colorscale=[[0, _GROUND], [1, _GROUND]],
        showscale=False,
        hoverinfo="skip",
        xgap=2,
        ygap=2,
    )
    figure.add_heatmap(
        x=[str(layer) for layer in teachers],
        y=[str(layer) for layer in students],
        z=cells,
        text=[["" if cell is None else f"{cell:.2f}" for cell in row] for row in cells],
        texttemplate="%{text}",
        textfont={"color": _ON_SCALE},
        zmin=0,
        zmax=1,
        colorscale=_SCALE,
        colorbar={"title": {"text": "loss"}, "thickness": 12},
        hovertemplate="student layer %{y} from teacher layer %{x}: loss %{z:.3f}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return figure


def curves_figure(losses: Sequence[LayerLoss]) -> go.Figure:
    """Held-out loss over the steps of the mini-KD, a line for each pair of the layer mapping."""
    figure = empty_figure("step of mini-KD", "held-out loss", height=340)
    pairs = sorted({(loss.layer, loss.teacher_layer) for loss in losses})
    targets = mapping(losses)
    for layer, teacher in pairs:
        rows = [loss for loss in losses if (loss.layer, loss.teacher_layer) == (layer, teacher)]
        figure.add_scatter(
            x=[row.step for row in rows],
            y=[_finite(row.loss) for row in rows],
            mode="lines+markers",
            name=f"{layer} ← {teacher}",
            line={
                "color": CATEGORICAL[(layer - 1) % len(CATEGORICAL)],
                "dash": _DASHES[targets[layer].index(teacher) % len(_DASHES)],
            },
            marker={"size": 5},
            hovertemplate=f"student {layer} ← teacher {teacher}, step %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    figure.update_layout(showlegend=len(pairs) <= _MANY_LINES)
    figure.update_yaxes(rangemode="tozero")
    return figure


def latency_figure(reading: LatencyReading) -> go.Figure:
    """The distribution of the timed runs, with p50 and p95."""
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
