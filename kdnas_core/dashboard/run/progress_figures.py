"""The figures of a search's progress: hypervolume by candidate, reward by episode."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.ui.charts import BLUE, GREEN, GREY, empty_figure
from kdnas_core.runs.records import Candidate

_MARKED = 30  # more markers than this hide their line


def hypervolume_figure(candidates: Sequence[Candidate], budget_ms: float | None) -> go.Figure:
    """Draws the share of the area up to the budget and a loss of 1 that the frontier dominates."""
    figure = empty_figure("candidates judged", "hypervolume (%)")
    shares = [] if budget_ms is None else progress.hypervolumes(candidates, budget_ms)
    figure.add_scatter(
        x=[order for order, _ in shares],
        y=[100 * share for _, share in shares],
        mode="lines+markers" if len(shares) <= _MARKED else "lines",
        line={"color": GREEN, "shape": "hv"},
        marker={"size": 5},
        hovertemplate="after %{x} judged: %{y:.1f} %<extra></extra>",
    )
    figure.update_xaxes(range=[0, 1.03 * max(5, len(shares))])
    figure.update_yaxes(range=[0, 100 * max([0.05, *(share for _, share in shares)]) * 1.1])
    return figure


def reward_figure(candidates: Sequence[Candidate]) -> go.Figure:
    """Draws the rewards of each episode, their mean, and the best so far."""
    figure = empty_figure("episode", "reward")
    summaries = progress.episode_rewards(candidates)
    episodes = [summary.episode for summary in summaries]
    dots = [(summary.episode, reward) for summary in summaries for reward in summary.rewards]
    figure.add_scatter(
        x=[episode for episode, _ in dots],
        y=[reward for _, reward in dots],
        mode="markers",
        name="candidate",
        marker={"color": GREY, "size": 6, "opacity": 0.6},
    )
    for name, colour, values in (
        ("mean", BLUE, [summary.mean for summary in summaries]),
        ("best so far", GREEN, [summary.best_so_far for summary in summaries]),
    ):
        figure.add_scatter(x=episodes, y=values, mode="lines+markers", name=name, line={"color": colour})
    figure.update_traces(hovertemplate="episode %{x}: %{y:.3f}")
    figure.update_xaxes(range=[0.5, max([2, *episodes]) + 0.5], dtick=max(1, len(episodes) // 10))
    return figure
