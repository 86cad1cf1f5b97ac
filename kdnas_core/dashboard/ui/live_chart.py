"""A Plotly figure that keeps its zoom while its data change.

`st.plotly_chart` is drawn anew whenever a number of its figure changes, and zoom and selection are lost. This
component hands each new figure to the chart that is on the page already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go
import streamlit as st
from plotly.offline import get_plotlyjs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Zoom = tuple[float, float, float, float]  # both ends of the horizontal axis, then of the vertical one

SCRIPT = Path(__file__).with_suffix(".js").read_text().replace("PLOTLY_VERSION", plotly.__version__)
_component = st.components.v2.component(
    "live_chart",
    html='<div class="live-chart"></div>',
    css=".live-chart { width: 100%; }",
    js=SCRIPT,
    isolate_styles=False,  # Plotly puts its styles into the page's head
)


def show(
    figure: go.Figure,
    key: str,
    *,
    name: str,
    alt: str,
    view: str = "",
    zoom: Zoom | None = None,
    on_zoom: Callable[[Zoom | None], None] | None = None,
    on_click: Callable[[int], None] | None = None,
    is_boxed: bool = False,
    on_box: Callable[[list[int]], None] | None = None,
) -> None:
    """Draws a figure whose points have ids as their `customdata`.

    Args:
        figure: with a height and ranges of its axes.
        key: of the component.
        name: of a downloaded picture.
        alt: describes the figure.
        view: what the axes show; if it changes, the zoom in the browser is given up.
        zoom: that the page begins with.
        on_zoom: called when it changes, with None when it is reset.
        on_click: called with the id of a point that was clicked.
        is_boxed: whether a box that was drawn is still in use; else it is taken off.
        on_box: called with the ids of the points in a box, and with none when it is taken off.
    """

    def told(field: str, act: Callable[[Any], None] | None) -> Callable[[], None]:
        return lambda: None if act is None else act(getattr(st.session_state[key], field, None))

    figure.layout.template = {}  # colours come from the theme of the page
    _component(
        key=key,
        data={
            "figure": figure.to_json(),
            "name": name,
            "alt": alt,
            "view": view,
            "zoom": zoom,
            "isBoxed": is_boxed,
        },
        on_zoom_change=told("zoom", on_zoom and (lambda given: on_zoom(as_zoom(given)))),
        on_clicked_change=told("clicked", on_click and (lambda given: _if_id(given, on_click))),
        on_boxed_change=told("boxed", on_box and (lambda given: on_box(_ids(given)))),
    )


def as_zoom(given: object) -> Zoom | None:
    """Returns four finite numbers as a zoom, and None for anything else."""
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 4:
        return None
    numbers = [value for value in given if isinstance(value, int | float) and math.isfinite(value)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _if_id(given: object, act: Callable[[int], None]) -> None:
    if isinstance(given, int):
        act(given)


def _ids(given: object) -> list[int]:
    return [each for each in given if isinstance(each, int)] if isinstance(given, list) else []


def _library(request: Request) -> Response:
    """The library that the chart loads once, from the installed package."""
    headers = {"cache-control": "max-age=86400"}
    return Response(get_plotlyjs(), media_type="text/javascript", headers=headers)


ROUTES = [Route("/plotly.min.js", _library)]
