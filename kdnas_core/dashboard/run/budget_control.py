"""The latency budget of a run's page: typed in ms or as a speed-up, or set by a slider."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import cast

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.progress import Limit, Reading
from kdnas_core.dashboard.ui import widgets
from kdnas_core.errors import BadInput
from kdnas_core.runs.records import Run
from kdnas_core.spec import LatencySpec

TYPED, SLID, READING = "budget", "slid", "at"  # of these, the first and the last stand in the address
HELP = "In ms, such as 7.5, or as a speed-up over the teacher, such as 3x."
_FORM = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|x|×)?\s*", re.IGNORECASE)
_FINEST_MS = 0.01  # as shown


def show(run: Run) -> Limit | None:
    """Draws the budget and returns it; None until the run's own is known in milliseconds."""
    scale = slider_scale(run)
    if scale is None:
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input(
            "Latency budget",
            wording.milliseconds(scale.own),
            key=TYPED,
            bind="query-params",
            width=130,
            help=HELP,
        )
        limit, refusal = progress.own_limit(run) or Limit(scale.own), ""
        try:
            limit = limit_of(typed or "", run) or limit
        except BadInput as error:
            refusal = str(error)
        # the slider follows what was typed; setting it to what it has would stop a hand that moves it
        position = min(max(scale.near(limit.ms), scale.low), scale.high)
        if st.session_state.get(SLID) != position:
            st.session_state[SLID] = position
        st.slider(
            "Latency budget (ms)",
            scale.low,
            scale.high,
            step=scale.step,
            format="%.2f ms",
            key=SLID,
            on_change=_slid,
            args=(scale,),
            label_visibility="collapsed",
        )
        reading = st.radio(
            "Reading",
            ["p50", "p95"],
            horizontal=True,
            key=READING,
            bind="query-params",
            label_visibility="collapsed",
            width="content",
        )
    if refusal:
        widgets.trouble(refusal)
    if limit.ms > scale.own:
        st.markdown(
            f"Beyond the search's own budget of {wording.milliseconds(scale.own)} nothing was distilled."
        )
    return replace(limit, reading=cast(Reading, reading))


def reset(run: Run) -> None:
    """Takes back what was typed and chosen; called before the budget is drawn."""
    own = progress.budget_of(run)
    st.session_state[READING] = "p50"
    if own is not None:
        st.session_state[TYPED] = wording.milliseconds(own)


def parsed(text: str, latency: LatencySpec) -> LatencySpec:
    """Returns a typed budget as one of a run.

    Args:
        text: for example "7.5", "7.5 ms" or "3x".
        latency: of the run; has the runtime and the protocol.

    Raises:
        BadInput: it is no budget.
    """
    found = _FORM.fullmatch(text)
    amount = float(found[1]) if found else 0.0
    if found is None or not 0 < amount < 1e6:
        raise BadInput(f"{text!r} is no latency budget; type ms, such as 7.5, or a speed-up, such as 3x.")
    is_speedup = (found[2] or "").lower() in ("x", "×")
    own = (
        {"budget_speedup": amount, "budget_ms": None}
        if is_speedup
        else {"budget_ms": amount, "budget_speedup": None}
    )
    return latency.model_copy(update=own)


def limit_of(text: str, run: Run) -> Limit | None:
    """Returns a typed budget; the run's own if it is typed as it is shown; None without a teacher.

    Raises:
        BadInput: as `parsed`.
    """
    own = progress.budget_of(run)
    if own is not None and text == wording.milliseconds(own):
        return progress.own_limit(run)  # which has more digits than are shown
    budget = parsed(text, run.spec.latency)
    if budget.budget_ms is not None:
        return Limit(budget.amounts[0])
    teacher = progress.teacher_ms(run)
    return None if teacher is None else Limit(teacher / budget.amounts[0], speedup=budget.amounts[0])


def _slid(scale: Scale) -> None:
    st.session_state[TYPED] = wording.milliseconds(scale.budget(float(st.session_state[SLID])))


@dataclass(frozen=True)
class Scale:
    """A slider in milliseconds, and the run's budget, which its start stands for."""

    low: float
    high: float
    step: float
    start: float
    own: float

    def budget(self, position: float) -> float:
        """Returns the budget at a position; at the start the run's own, which is rarely a whole step."""
        return self.own if math.isclose(position, self.start) else position

    def near(self, budget: float) -> float:
        """Returns the position for a budget: where it is, which need not be a whole step."""
        return self.start if budget == self.own else budget


def slider_scale(run: Run) -> Scale | None:
    """Returns a slider up to the teacher's latency, with the run's budget as one of its positions.

    Returns None until the run's budget is known in milliseconds.
    """
    own = progress.budget_of(run)
    if own is None:
        return None
    high = max(own, progress.teacher_ms(run) or 2 * own)
    step = max(_FINEST_MS, 10.0 ** math.floor(math.log10(high / 100)) / 2)
    start = max(_FINEST_MS, math.floor(own / _FINEST_MS) * _FINEST_MS)
    below = max(0, math.ceil(start / step) - 1)
    above = max(0, math.ceil((high - start) / step))
    return Scale(round(start - below * step, 2), round(start + above * step, 2), step, round(start, 2), own)
