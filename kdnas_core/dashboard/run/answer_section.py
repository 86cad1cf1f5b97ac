"""The part of a run's page that answers: the student to take within the budget, and what it costs."""

from __future__ import annotations

import math
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls, requests
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import frontier_section
from kdnas_core.dashboard.ui import ask_button, links, widgets
from kdnas_core.runs.names import Source
from kdnas_core.runs.picks import margin_of
from kdnas_core.runs.records import Candidate


def show(db: Path, snapshot: Snapshot, found: Findings, chosen: Candidate | None) -> None:
    """Draws the pick within the budget, and under it the candidate that was chosen, if any."""
    limit, best = found.limit, found.pick
    if best is not None and limit is not None:
        with st.container(border=True, key="best"):
            _facts(best, f"Pick within {_words(limit)}: candidate {best.id}")
            st.markdown("\n\n".join(f":small[{reason}]" for reason in _reasons(found, best)))
            _actions(db, best, snapshot)
    elif limit is not None and found.over:
        st.info(f"No student so far takes {_words(limit)} or less; raise the budget.")
    else:
        st.info("No student has been distilled yet; the first appears here as soon as it is judged.")
    if chosen is not None:
        with st.container(border=True, key="choice"):
            _facts(chosen, f"Your choice: candidate {chosen.id} ({wording.state(chosen.state)})")
            links.to_candidate(chosen.id, "Open")
            st.button("Clear choice", on_click=frontier_section.clear_choice)


def _words(limit: Limit) -> str:
    return wording.milliseconds(limit.ms) + (" at p95" if limit.reading == "p95" else "")


def _facts(row: Candidate, title: str) -> None:
    st.markdown(f"**{title}**")
    st.markdown(wording.shape(row.architecture))
    if row.latency is None:
        st.markdown(f"{wording.estimated(row.estimated_ms)}, not measured")
    else:
        speedup = wording.times(progress.speedup_of(row))
        st.markdown(
            f"**{wording.milliseconds(row.latency.p50)}** p50, {wording.milliseconds(row.latency.p95)} p95,"
            f" **{speedup}** the teacher's speed"
        )
    judged = "not distilled" if math.isnan(row.point[1]) else wording.judged(row)
    then = "" if row.stopped is None else f", {row.stopped}"
    st.markdown(f"**{judged}**{then}; {wording.count(row.parameters)} parameters")


def _reasons(found: Findings, best: Candidate) -> list[str]:
    """Says with which a pick is tied, how far it is ahead, and what more and less latency would change."""
    told, following = [], found.ahead_of()
    if better := [row for row in found.tied if row.point[1] < best.point[1]]:
        told.append(wording.tie(better))
    elif following is not None:
        told.append(wording.ahead(following, *margin_of(best, following)))
    slower = [row for row in found.whole if row.point[0] > best.point[0] and row.point[1] < best.point[1]]
    faster = [row for row in found.whole if row.point[0] < best.point[0] and row.point[1] > best.point[1]]
    told += [wording.exchange(best, row) for row in (*slower[:1], *faster[-1:])]
    return told


def _actions(db: Path, best: Candidate, snapshot: Snapshot) -> None:
    with st.container(horizontal=True):
        links.to_candidate(best.id, "Open")
        st.download_button(
            "Config",
            lambda: controls.config_of(db, best),  # read at a press alone
            file_name=f"candidate-{best.id}-config.json",
            mime="application/json",
            on_click="ignore",
            icon=":material/download:",
            help="Its config.json, as stock transformers reads it.",
        )
        st.button(
            "Export",
            key=f"export_pick_{best.id}",
            icon=":material/archive:",
            disabled=not best.weights,
            on_click=widgets.do,
            args=(lambda: controls.export(db, Source(best), with_onnx=True),),
            help="A folder with its weights, as its mini-KD left it, and ONNX; its page has the download.",
        )
    if best.id in {row.candidate for row in snapshot.students if row.spec.task is None}:
        st.markdown(":small[It is distilled in full, or going to be: see below.]")
    else:
        ask_button.show(
            "Distil in full", f"distil_pick_{best.id}", db, lambda: requests.distil(db, [str(best.id)], {})
        )
