"""The buttons that change the state of a piece of work, and the errors of that work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.ui import widgets
from kdnas_core.runs.jobs import ACTIVE, RESUMABLE
from kdnas_core.runs.records import AnyWork

_WAITS = "Waiting for a worker: one serves what was queued first."
_RUN_WAITS = "Waiting for a worker: one serves the oldest run first."
_KEPT = {
    "runs": "The worker ended before the run did. All that was judged is kept; Resume goes on from there.",
    "students": "The worker ended before the distillation did. Resume goes on from its last checkpoint.",
    "scorings": "The worker ended before the scoring did. All scores so far are kept; Resume goes on.",
    "sweeps": "The worker ended before the sweep did. All readings so far are kept; Resume goes on.",
    "exports": "The worker ended before the export did. Nothing of it is left; Resume makes it anew.",
}


def buttons(db: Path, work: AnyWork) -> None:
    """Draws the buttons that the state of the work allows."""
    with st.container(horizontal=True):
        change(db, work)


def change(db: Path, work: AnyWork) -> None:
    """Draws the same buttons, without a row around them."""
    if work.state in ACTIVE:
        asked = work.request is not None
        if work.job.kind != "exports":  # a stopped export keeps nothing
            _button("Pause", ":material/pause:", controls.pause, db, work, disabled=asked)
        _button("Stop", ":material/stop:", controls.stop, db, work, disabled=asked)
    if work.state in RESUMABLE:
        _button("Resume", ":material/play_arrow:", controls.resume, db, work)
    if work.state == "paused":
        _button("Stop", ":material/stop:", controls.stop, db, work)
    if work.state == "queued":
        _button("Start a worker", ":material/play_arrow:", controls.resume, db, work)


def _button(
    label: str, icon: str, action: controls.Action, db: Path, work: AnyWork, *, disabled: bool = False
) -> None:
    st.button(
        label,
        key=f"{label}_{work.job.kind}_{work.id}",
        icon=icon,
        on_click=widgets.act,
        args=(action, db, work.job),
        disabled=disabled,
    )


def trouble(work: AnyWork) -> None:
    """Shows why work does not run: it failed, was interrupted, or is queued."""
    kind = work.job.kind
    if work.state == "failed":
        noun = work.job.title.split()[0].lower()
        widgets.trouble(
            work.error or f"The {noun} failed and left no reason; see the worker's log beside the store."
        )
    if work.state == "interrupted":
        st.warning(_KEPT[kind])
    if work.state == "queued":
        st.markdown(_RUN_WAITS if kind == "runs" else _WAITS)


def delete_button(work: AnyWork) -> None:
    """Draws the delete button; `confirm_delete` draws the question."""
    busy = work.state == "running"
    st.button(
        f"Delete {work.job.title.lower()} …",
        key=f"delete_{work.job.kind}_{work.id}",
        on_click=_ask_whether,
        args=(work, True),
        disabled=busy,
        help="Stop it first." if busy else None,
    )


def confirm_delete(db: Path, work: AnyWork, what: str, then: Callable[[], None]) -> None:
    """Asks for confirmation after a press of the delete button.

    It is not a dialog, which would close when the page is redrawn.

    Args:
        db: the store.
        work: to delete.
        what: a sentence on what is deleted with it.
        then: called after the deletion, to leave or redraw the page.
    """
    if not st.session_state.get(_asked(work)) or work.state == "running":
        return
    with st.container(border=True, key=f"confirm_{work.job.kind}_{work.id}"):
        st.markdown(what)
        with st.container(horizontal=True):
            name = f"{work.job.kind}_{work.id}"
            if st.button("Delete for good", type="primary", key=f"for_good_{name}"):
                _ask_whether(work, False)
                widgets.act(controls.delete, db, work.job)
                then()
            st.button("Keep it", key=f"keep_{name}", on_click=_ask_whether, args=(work, False))


def _asked(work: AnyWork) -> str:
    return f"deleting_{work.job.kind}_{work.id}"


def _ask_whether(work: AnyWork, yes: bool) -> None:
    st.session_state[_asked(work)] = yes
