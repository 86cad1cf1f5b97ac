"""The part of the form that shows the estimated latencies of the search space."""

from __future__ import annotations

import streamlit as st

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.model import forecast
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.new_search import space_figure
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.latency.model import known_here
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec, RunSpec


def show(spec: RunSpec, teacher: Architecture) -> Forecast:
    """Draws the estimated latencies of the chosen space, and returns them.

    Raises:
        BadInput: the choices leave no valid architecture.
    """
    seen = forecast.make_forecast(
        spec.latency,
        SearchSpace.from_spec(spec.filled_from(teacher).space, teacher),
        teacher,
        starting.teacher_ms(spec.teacher, teacher, spec.latency),
        starting.latency_model(spec.latency),
    )
    if seen.budget_ms is not None:
        st.plotly_chart(
            space_figure.space_figure(seen), key="space", config=CONFIG, alt=space_figure.alt(seen)
        )
        st.markdown(f"{forecast.in_words(seen)} {_beyond(seen, spec.latency)}")
        st.markdown(":small[Within a row, all students have as many layers; wider ones are drawn higher.]")
    else:
        st.markdown(forecast.in_words(seen))
    return seen


def _beyond(seen: Forecast, protocol: LatencySpec) -> str:
    """A sentence on the students larger than any that the model was fitted on, if there are some."""
    if seen.model is None:
        return ""
    length = protocol.sequence_length
    most = max(at.architecture.flops(length) for at in known_here(protocol))
    beyond = sum(shape.flops(length) > most for shape in seen.shapes)
    return f"{beyond:,} are larger than any of those; there it is less certain." if beyond else ""
