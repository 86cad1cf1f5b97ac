"""The form of a new search: its size, teacher, text and budgets at a glance, and every other choice below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.home import import_section
from kdnas_core.dashboard.model import time_estimate
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.new_search import (
    effort_form,
    latency_form,
    objective_form,
    sizes,
    sources_form,
    space_form,
    space_section,
    spec_form,
)
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import ask_button, places, widgets
from kdnas_core.errors import BadInput
from kdnas_core.runs.records import Check
from kdnas_core.spec import ObjectiveSpec, RunSpec, parse_spec


def chosen(db: Path, size: str) -> tuple[RunSpec, Forecast | None]:
    """Draws the form of a size of search; returns the spec, and what its space is expected to take.

    Raises:
        BadInput: a choice cannot be; all of the form is drawn, since Streamlit forgets what is not.
    """
    left, right = st.columns([1, 2], gap="medium")
    if size == sizes.AS_JSON:
        with left:
            spec = starting.checked(spec_form.show(db).model_dump())
        with right:
            st.markdown(import_section.search_in_words(spec))
            return spec, picture(spec, starting.shape_of(spec.teacher))
    refused: list[BadInput] = []
    with left:
        fields, shape = sources_form.show(db)
        fields["latency"] = tried(lambda: latency_form.show(fields["teacher"], shape), refused)
    fields |= details(fields["teacher"], shape, refused) if size == sizes.CUSTOM else sizes.SIZES[size].fields
    if refused:
        raise refused[0]
    spec = parse_spec(fields)
    with right:
        return spec, picture(spec, shape)


def tried(draw: Callable[[], dict[str, Any]], refused: list[BadInput]) -> dict[str, Any]:
    """Draws a part of the form; adds its error to those that were refused."""
    try:
        return draw()
    except BadInput as error:
        refused.append(error)
        return {}


def details(teacher: str, shape: Architecture | None, refused: list[BadInput]) -> dict[str, Any]:
    """Draws every choice that the glance has not."""
    above = st.container()  # the space is drawn first, though what it offers is of the objective
    objective = tried(objective_form.show, refused)
    with above:
        same_heads = ObjectiveSpec(**objective).compares_heads
        space = tried(lambda: space_form.show(teacher, shape, same_heads), refused)
    return {"objective": objective, "space": space, **tried(effort_form.show, refused)}


def picture(spec: RunSpec, shape: Architecture | None) -> Forecast | None:
    return None if shape is None else space_section.show(spec, shape)


def summary(db: Path, spec: RunSpec, seen: Forecast | None) -> str:
    if seen is None:
        return "How long it will take is known once the teacher has been loaded."
    rough = time_estimate.estimate(spec, seen, time_estimate.pace_here(db))
    basis = "at the pace of earlier runs here" if rough.measured else "by a rule of thumb"
    return (
        f"**About {wording.duration(rough.seconds)}**, a rough estimate {basis}: {rough.candidates}"
        f" candidates, {rough.distilled} of them expected within the budget and distilled"
    )


def open_run(check: Check) -> None:
    st.switch_page(places.RUN, query_params={"run": str(check.made[0])})


def page() -> None:
    db = live.database()
    st.title("New search")
    size = sizes.show()
    try:
        spec, seen = chosen(db, size)
        told = summary(db, spec, seen)
    except BadInput as error:
        widgets.trouble(error)
        with st.bottom:
            st.button("Start search", type="primary", icon=":material/play_arrow:", disabled=True)
        return
    with st.bottom, st.container(horizontal=True, vertical_alignment="center", key="start_bar"):
        st.markdown(told, width="stretch")
        ask_button.show(
            "Start search",
            "start",
            db,
            lambda: starting.start(db, spec.model_dump(exclude_unset=True)),
            then=open_run,
            refusal="Not started",
        )


page()
