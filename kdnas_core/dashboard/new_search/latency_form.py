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
LOWEST_MS = 0.01
FURTHER_HELP = (
    "By commas, as 3, 5, 10: a student is picked for each. Nothing slower than the largest is distilled. Of"
    " the controllers the surrogate improves the picks of all; the others know the largest budget alone."
)


def show(teacher: str, shape: Architecture | None) -> dict[str, Any]:
    """Draws the choices and returns the fields of a `LatencySpec`.

    Raises:
        BadInput: a choice about the protocol is not allowed.
    """
    st.header("Latency budget")
    runtime = st.selectbox("Runtime", hardware.runtimes(), format_func=wording.runtime, help=RUNTIME_HELP)
    place = st.container()
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
    model = starting.latency_model(protocol)
    kind = st.radio("Budget as", [SPEEDUP, MILLISECONDS], horizontal=True)
    left, right = st.columns(2, vertical_alignment="bottom")
    known = _teacher_line(teacher_ms, shape, protocol, model)
    if kind == MILLISECONDS:
        start = max(LOWEST_MS, round(teacher_ms / 2, 2)) if teacher_ms else 10.0
        # a key for each runtime and teacher, so that only a change of these resets the field
        key = f"budget_ms_{protocol.runtime}_{teacher}"
        value = left.number_input("At most (ms, p50)", LOWEST_MS, None, start, 0.5, key=key)
        right.markdown(known)
        return {"budget_ms": _with_further(value, kind)}
    value = left.number_input("Minimum speed-up over the teacher", 0.1, None, 2.0, 0.5)
    place = right.empty()
    speedups = _with_further(value, kind)
    least = min(speedups) if isinstance(speedups, list) else speedups
    within = f", so at most {wording.milliseconds(teacher_ms / least)}" if teacher_ms else ""
    place.markdown(known + within)
    return {"budget_speedup": speedups}


def _with_further(first: float, kind: str) -> float | list[float]:
    # a key for each kind, since 5 times as fast and 5 ms are different budgets
    text = st.text_input("Further budgets", placeholder="none", help=FURTHER_HELP, key=f"further_{kind}")
    try:
        further = [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        raise BadInput(f"'{text}' are no budgets; write numbers with commas between, as 3, 5, 10.") from None
    if not all(0 < budget < math.inf for budget in further):
        raise BadInput(f"'{text}' are no budgets; write numbers above 0 with commas between, as 3, 5, 10.")
    return [first, *further] if further else first


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
