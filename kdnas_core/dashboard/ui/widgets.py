"""Widgets that several pages share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.ui import places
from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.jobs import Job, Work
from kdnas_core.runs.records import Run

TOLD = (BadInput, Failure)  # errors whose message is a sentence for the user
_SAID = "said"


def trouble(sentence: object) -> None:
    """Shows an error; names and paths in it are not read as Markdown."""
    st.error(wording.plain(str(sentence)))


@contextmanager
def sentences() -> Iterator[None]:
    """Shows a `BadInput` or `Failure` of the `with` block, and ends the page there."""
    try:
        yield
    except TOLD as error:
        trouble(error)
        st.page_link(places.HOME, label="All searches", icon=":material/arrow_back:")
        st.stop()


def act(action: controls.Action, db: Path, job: Job) -> None:
    """Runs a button's action on a job; as `do`."""
    do(lambda: action(db, job))


def do(action: Callable[[], str]) -> None:
    """Runs a button's action and saves its sentence, or its error, for `say`; used as `on_click`."""
    try:
        st.session_state[_SAID] = (action(), "ok")
    except TOLD as error:
        st.session_state[_SAID] = (str(error), "error")


def keep(sentence: str) -> None:
    """Saves a sentence for `say`."""
    st.session_state[_SAID] = (sentence, "ok")


def say() -> None:
    """Shows the saved sentence, once."""
    sentence, kind = st.session_state.pop(_SAID, ("", "ok"))
    if sentence:
        st.toast(wording.plain(sentence)) if kind == "ok" else trouble(sentence)


def cards(rows: Sequence[tuple[str, str, str | None]]) -> None:
    """Draws a card for each label, value and what stands beside it, if anything."""
    with st.container(horizontal=True):
        for label, value, beside in rows:
            st.metric(
                label, value, beside, delta_color="off", delta_arrow="off", border=True, width=170, height=118
            )


def state_badge(work: Run | Work) -> None:
    """Draws the state of a piece of work, or the request that it has not obeyed yet."""
    if work.state == "running" and work.request:
        st.badge({"pause": "pausing", "stop": "stopping"}[work.request], color="orange")
    else:
        st.badge(wording.state(work.state), color=wording.RUN_COLOURS[work.state])  # type: ignore[arg-type]


def with_work(facts: list[str], work: Run | Work) -> list[str]:
    """Adds the activity and last heartbeat of running work, or the time spent on other work, to facts."""
    if work.state == "running":
        now = f"**Now: {wording.plain(work.activity or 'starting')}**"
        return [now, *facts, f"last beat {wording.ago(work.heartbeat_at, time.time())}"]
    return [*facts, f"{wording.duration(work.seconds)} of work"] if work.seconds >= 1 else facts
