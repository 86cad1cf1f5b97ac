"""A button that checks before it queues: seconds pass, in which it cannot be pressed again."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act.requests import Tell
from kdnas_core.dashboard.ui import widgets


def show(label: str, key: str, ask: Callable[[Tell], str], *, disabled: bool = False) -> None:
    """Draws the button, and why its last press was refused.

    Args:
        label: on the button.
        key: tells it from others.
        ask: does it, and returns a sentence about it; told where to say what it is at.
        disabled: whether the form is not complete.
    """
    busy = st.session_state.get(_busy(key), False)
    st.button(
        label,
        key=key,
        type="primary",
        icon=":material/play_arrow:",
        on_click=_press,
        args=(key,),
        disabled=busy or disabled,
    )
    if refusal := st.session_state.get(_refused(key)):
        widgets.trouble(f"Not queued. {refusal}")
    if busy:
        _ask(key, ask)


def _busy(key: str) -> str:
    return f"{key}_busy"


def _refused(key: str) -> str:
    return f"{key}_refused"


def _press(key: str) -> None:
    st.session_state[_busy(key)] = True
    st.session_state.pop(_refused(key), None)


def _ask(key: str, ask: Callable[[Tell], str]) -> None:
    with st.status("Checking …") as status:
        try:
            widgets.keep(ask(lambda activity: status.update(label=wording.plain(activity))))
        except widgets.TOLD as error:
            st.session_state[_refused(key)] = str(error)
        finally:
            st.session_state[_busy(key)] = False
    st.rerun()  # with the button ready to be pressed again, and what was queued on the page
