"""The header of a run's page: its state, buttons and progress."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui import widgets, work_controls
from kdnas_core.errors import BadInput

UPDATES = "updates"
UPDATES_HELP = "Switched off, the page is drawn anew only when you change something."


def show(db: Path, drawn: Snapshot, refresh: float | None) -> None:
    """Draws the header of a run's page, and has the whole page drawn anew when the run has changed.

    Args:
        db: the store.
        drawn: what the page shows.
        refresh: seconds until this is called again, as the page asked for; None if it is not.
    """
    try:
        run, is_newer = live.newer(db, drawn)
    except BadInput:  # it was deleted meanwhile, which the page says
        st.rerun()
    if live.refresh_s([run, *drawn.students], live=updates()) != refresh or (is_newer and updates()):
        st.rerun()  # before a message is shown, which would be lost
    _draw(db, dataclasses.replace(drawn, run=run))


def updates() -> bool:
    """Whether the page follows the search."""
    return bool(st.session_state.get(UPDATES, True))


def _draw(db: Path, snapshot: Snapshot) -> None:
    run = snapshot.run
    with st.container(horizontal=True, vertical_alignment="center", key="run_header"):
        st.title(f"Run {run.id} · {wording.plain(run.name)}", width="content")
        widgets.state_badge(run)
        work_controls.change(db, run)
        st.space("stretch")
        st.toggle("Live", value=True, key=UPDATES, help=UPDATES_HELP)
    widgets.say()
    work_controls.trouble(run)
    _progress(snapshot)


def _progress(snapshot: Snapshot) -> None:
    run, candidates = snapshot.run, snapshot.candidates
    states = progress.by_state(candidates)
    planned, judged = progress.planned(run), sum(len(states[state]) for state in progress.JUDGED)
    skipped = len(progress.skipped(states["over_budget"]))
    unmeasured = f" ({skipped} by an estimate alone, not measured)" if skipped else ""
    pruned = states["pruned"]
    share = progress.steps_saved([*pruned, *states["done"]]) if pruned else 0.0
    saved = f", {len(pruned)} stopped early, which saved {share:.0%} of the steps"
    st.progress(
        1.0 if run.state == "finished" else min(1.0, judged / max(1, planned)),
        text=f"Episode {run.episode} of {run.spec.search.episodes} · {judged} of {planned} candidates judged:"
        f" {len(states['done'])} distilled, {len(states['over_budget'])} over budget{unmeasured},"
        f" {len(states['failed'])} failed{saved if pruned else ''}",
    )
    st.markdown(f":small[{' · '.join(_facts(snapshot))}]")


def _facts(snapshot: Snapshot) -> list[str]:
    run = snapshot.run
    facts = [
        f"Objective {wording.objective(run.spec.objective)}",
        f"Budget {wording.budget(run.spec.latency, progress.budget_of(run))}",
    ]
    if run.teacher is not None:
        facts.insert(
            0,
            f"Teacher {wording.plain(run.teacher.name)}, {wording.milliseconds(run.teacher.latency.p50)} p50",
        )
    left = progress.seconds_left(run, snapshot.candidates)
    if left is not None and left >= 1:
        facts.append(f"about {wording.duration(left)} left")
    return widgets.with_work(facts, run)
