"""The part of a run's page with a pick for each of several budgets, side by side."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run.budget_control import parsed
from kdnas_core.dashboard.ui import links, tables, widgets
from kdnas_core.errors import BadInput
from kdnas_core.runs.picks import picks
from kdnas_core.runs.records import Run
from kdnas_core.spec import LatencySpec

KEY = "budgets"
MOST = 20
USUAL = (2.0, 3.0, 5.0, 7.0, 10.0)  # speed-ups, where a search has one budget
HELP = "Several, such as 2x, 5x, 7.5 ms. Nothing runs: students are picked from what was measured."
TIED = (
    "The best candidate within a budget is tied with those whose agreement is lower by no more than the noise"
    " of the difference, as held-out texts show it; the fastest of them is picked. Better unseen is the"
    " probability, by a surrogate of all losses, that one of the most promising of 2,000 architectures that"
    " were not judged has a loss lower by one per cent."
)


def show(db: Path, snapshot: Snapshot, found: Findings) -> None:
    """Draws the budgets, a row for each, and a download of all their configurations; nothing too early."""
    run = snapshot.run
    if run.teacher is None or not (found.within or found.over):
        return
    st.header("For each budget")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input("Budgets", usual(run), key=KEY, bind="query-params", width=320, help=HELP)
        try:
            chosen = picks(run, found.measured, budgets(typed or "", run))
        except BadInput as error:
            widgets.trouble(str(error))
            chosen = picks(run, found.measured)
        st.download_button(
            "Download their configs (zip)",
            lambda: controls.configs_of(db, run.id, chosen),  # read at a press alone
            file_name=f"run-{run.id}-configs.zip",
            mime="application/zip",
            on_click="ignore",
            icon=":material/download:",
            disabled=all(pick.best is None for pick in chosen),
        )
        links.to_comparison([pick.best.id for pick in chosen if pick.best is not None])
    st.dataframe(
        tables.picks_table(chosen),
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config=tables.PICK_COLUMNS,
        alt="The pick for each budget, how far it is ahead of the next, and the gain for each ms",
    )
    st.markdown(f":small[{TIED}]")


def reset(run: Run) -> None:
    """Takes back what was typed; called before the budgets are drawn."""
    if run.teacher is not None:
        st.session_state[KEY] = usual(run)


def usual(run: Run) -> str:
    """Returns the budgets that are shown first: those of the run, or usual speed-ups if it has one."""
    own = run.spec.latency.budgets
    if len(own) > 1:
        return ", ".join(_words(budget) for budget in own)
    within = [speedup for speedup in USUAL if _is_within(speedup, own[0], run)]
    return ", ".join([_words(own[0]), *(f"{speedup:g}x" for speedup in within)])


def budgets(text: str, run: Run) -> list[LatencySpec]:
    """Returns typed budgets, without repeats, in the order in which they were typed.

    Raises:
        BadInput: one of them is no budget, or there is none.
    """
    parts = [part for part in re.split(r"[,;]", text) if part.strip()]
    if not 1 <= len(parts) <= MOST:
        raise BadInput(f"Type 1 to {MOST} budgets, such as 2x, 5x, 7.5 ms.")
    return list(dict.fromkeys(parsed(part, run.spec.latency) for part in parts))


def _words(budget: LatencySpec) -> str:
    """A budget so that it is read as the very same."""
    return f"{budget.amounts[0]!r}{'x' if budget.budget_ms is None else ' ms'}".replace(".0x", "x")


def _is_within(speedup: float, own: LatencySpec, run: Run) -> bool:
    """Whether a speed-up asks for more than the run's own budget does."""
    if own.budget_speedup is not None:
        return speedup > own.amounts[0]
    assert run.teacher is not None
    return run.teacher.latency.p50 / speedup < own.amounts[0]
