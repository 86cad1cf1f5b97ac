"""The part of the form for the latency protocol and the budget."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from kdnas_core import hardware
from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.model import forecast
from kdnas_core.errors import BadInput
from kdnas_core.latency.model import LatencyModel
from kdnas_core.spec import LatencySpec

MILLISECONDS, SPEEDUP = "Milliseconds", "Speed-up"
RUNTIME_HELP = "Where your student will run: teacher and students are all measured there."
SPEEDUPS = (2.0, 3.0, 5.0, 7.0, 10.0)  # that are offered; also of a teacher's latency
USUAL_MS = (20.0, 10.0, 5.0, 2.0)  # of a teacher that was not measured
BUDGETS_HELP = (
    "Choose some, or type one and press Enter: a student is picked for each. Nothing slower than the largest"
    " is distilled. Of the controllers the surrogate improves the picks of all; the others know the largest"
    " budget alone."
)


def show(teacher: str, shape: Architecture | None) -> dict[str, Any]:
    """Draws the choices and returns the fields of a `LatencySpec`.

    Raises:
        BadInput: a choice about the protocol is not allowed, or what was typed is no budget.
    """
    place = st.container()
    runtime = st.selectbox("Runtime", hardware.runtimes(), format_func=wording.runtime, help=RUNTIME_HELP)
    fields = {"runtime": runtime, **_protocol(runtime)}
    protocol = starting.protocol(fields)
    with place:
        return fields | _budget(teacher, shape, protocol)


def _protocol(runtime: str) -> dict[str, int]:
    usual = LatencySpec()
    with st.expander("How latency is measured"):
        left, middle, right = st.columns(3)
        return {
            "threads": left.number_input(
                "Threads", 1, 64, usual.threads, disabled=runtime == "torch-cuda", help="of the processor"
            ),
            "batch_size": middle.number_input("Texts at once", 1, 256, usual.batch_size),
            "sequence_length": right.number_input("Tokens in each text", 8, 512, usual.sequence_length),
            "warmup": left.number_input("Warm-up runs", 20, 1_000, usual.warmup, help="not counted"),
            "runs": middle.number_input("Timed runs", 100, 10_000, usual.runs, help="of which p50 and p95"),
        }


def _budget(
    teacher: str, shape: Architecture | None, protocol: LatencySpec
) -> dict[str, float | list[float]]:
    teacher_ms = starting.teacher_ms(teacher, shape, protocol)
    kind = st.radio("Budget as", [SPEEDUP, MILLISECONDS], horizontal=True)
    options: tuple[float, ...] = SPEEDUPS
    if kind == MILLISECONDS:
        options = tuple(round(teacher_ms / speedup, 2) for speedup in SPEEDUPS) if teacher_ms else USUAL_MS
    chosen = st.multiselect(
        "Budgets" if kind == SPEEDUP else "Budgets (ms, p50)",
        options,
        options[:1],
        format_func=lambda amount: _named(amount, kind),
        accept_new_options=True,
        # a key for each kind, since 5 times as fast and 5 ms are different budgets, and for each runtime and
        # teacher, so that only a change of these resets the field
        key=kind if kind == SPEEDUP else f"{kind}_{protocol.runtime}_{teacher}",
        help=BUDGETS_HELP,
    )
    amounts = [amount_of(each, kind) for each in chosen]
    st.markdown(f":small[{_teacher_line(teacher_ms, shape, protocol, starting.latency_model(protocol))}]")
    if not amounts:
        raise BadInput(f"Choose a budget, or type one, such as {_named(options[0], kind)}.")
    given = amounts if len(amounts) > 1 else amounts[0]
    return {"budget_speedup": given} if kind == SPEEDUP else {"budget_ms": given}


def _named(amount: float | str, kind: str) -> str:
    if isinstance(amount, str):  # it was typed
        return amount
    return f"{amount:g}×" if kind == SPEEDUP else f"{amount:g} ms"


def amount_of(given: float | str, kind: str) -> float:
    """Returns the amount of a budget that was chosen or typed, with its unit or without.

    Raises:
        BadInput: it is none.
    """
    text = str(given).strip().lower()
    for unit in ("x", "×") if kind == SPEEDUP else ("ms",):
        text = text.removesuffix(unit).strip()
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        example = "3 or 3x" if kind == SPEEDUP else "7.5 or 7.5 ms"
        raise BadInput(f"'{given}' is no budget; write a number above 0, as {example}.")
    return amount


def _teacher_line(
    teacher_ms: float | None, shape: Architecture | None, protocol: LatencySpec, model: LatencyModel | None
) -> str:
    if teacher_ms is not None:
        return f"The teacher takes {wording.milliseconds(teacher_ms)} on this machine"
    estimate = None if shape is None else forecast.estimated_ms(shape, protocol, model)
    about = "" if estimate is None else f" ({wording.estimated(estimate)})"
    return (
        f"The teacher is not measured in this way on this machine yet{about};"
        " it will be before the search starts."
    )
