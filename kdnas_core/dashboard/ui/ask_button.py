"""A button that has a worker check what is asked for, and waits: seconds in which it cannot be pressed again.

The check is remembered in the session: however often the page is drawn meanwhile, its outcome is shown.
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
    st.rerun()  # with the button ready to be pressed again, and what was queued on the page


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
    """Draws the button, and why its last press was refused.

    Args:
        label: on the button.
        key: tells it from others.
        db: the store.
        submit: queues the check and returns its id.
        then: told the check that has passed, once.
        refusal: what a sentence about a refused press begins with.
        disabled: whether the form is not complete.
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
    st.session_state[_busy(key)] = None  # until its check is known
    st.session_state.pop(_refused(key), None)


def _cancel(db: Path, key: str) -> None:
    check: int | None = st.session_state.get(_busy(key))
    if check is not None:
        requests.cancel(db, check)


def _wait(key: str, db: Path, submit: Callable[[], int], then: Callable[[Check], None]) -> None:
    with st.status("Checking …") as status:
        try:
            if st.session_state[_busy(key)] is None:
                st.session_state[_busy(key)] = submit()
            check = requests.outcome(
                db,
                st.session_state[_busy(key)],
                # when the page is drawn anew, the wait ends here, and is taken up there
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
