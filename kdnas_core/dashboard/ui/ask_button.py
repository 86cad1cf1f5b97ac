"""A button that submits a request to a worker's check, and waits for it for some seconds.

The session stores the check, so that its outcome is shown even if the page is redrawn meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.ui import widgets
from kdnas_core.runs.records import Check


def _say(check: Check) -> None:
    widgets.keep(requests.queued(check))
    st.rerun()  # enables the button again, and shows the queued work on the page


def show(
    label: str,
    key: str,
    db: Path,
    submit: Callable[[], int],
    *,
    then: Callable[[Check], None] = _say,
    refusal: str = "Not queued",
    disabled: bool = False,
) -> None:
    """Draws the button, and the error of its last press.

    Args:
        label: on the button.
        key: unique on the page.
        db: the store.
        submit: queues the check and returns its id.
        then: called once with the check that has passed.
        refusal: the start of the error message.
        disabled: whether the form is incomplete.
    """
    busy = _busy(key) in st.session_state
    with st.container(horizontal=True):
        st.button(
            label,
            key=key,
            type="primary",
            icon=":material/play_arrow:",
            on_click=_press,
            args=(key,),
            disabled=busy or disabled,
        )
        if busy:
            st.button("Cancel", key=f"{key}_cancel", on_click=_cancel, args=(db, key))
    if refused := st.session_state.get(_refused(key)):
        widgets.trouble(f"{refusal}. {refused}")
    if busy:
        _wait(key, db, submit, then)


def _busy(key: str) -> str:
    return f"{key}_busy"


def _refused(key: str) -> str:
    return f"{key}_refused"


def _press(key: str) -> None:
    st.session_state[_busy(key)] = None  # until the check is submitted
    st.session_state.pop(_refused(key), None)


def _cancel(db: Path, key: str) -> None:
    check: int | None = st.session_state.get(_busy(key))
    if check is not None:
        requests.cancel(db, check)


def _wait(key: str, db: Path, submit: Callable[[], int], then: Callable[[Check], None]) -> None:
    with st.status("Checking …") as status:
        try:
            if st.session_state[_busy(key)] is None:
                # known before anything takes long: another drawing of the page begins beside this one
                st.session_state[_busy(key)] = submit()
            check = requests.outcome(
                db,
                st.session_state[_busy(key)],
                # if the page is redrawn, this raises; the new page waits for the same check
                lambda activity: status.update(label=wording.plain(activity)),
            )
        except widgets.TOLD as error:
            st.session_state[_refused(key)] = str(error)
            check = None
        except Exception:
            del st.session_state[_busy(key)]
            raise
    del st.session_state[_busy(key)]
    if check is None:
        st.rerun()
    then(check)
