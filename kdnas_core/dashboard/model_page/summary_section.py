"""The part of a candidate's page that says in sentences what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_story
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.runs.records import Candidate


def show(seen: CandidateView, of_run: Sequence[Candidate]) -> None:
    """Draws the sentences that what is known of it allows.

    Args:
        seen: the candidate.
        of_run: all candidates of its run.
    """
    sentences = [
        sentence for sentence in (_place(seen.candidate, of_run), _layers(seen)) if sentence is not None
    ]
    if sentences:
        st.markdown("\n".join(f"- {sentence}" for sentence in sentences))


def _place(candidate: Candidate, of_run: Sequence[Candidate]) -> str | None:
    """Where it stands among the students of its run."""
    if candidate.state != "done" or not all(map(math.isfinite, candidate.point)):
        return None
    front = Findings.of(of_run, None).frontier
    if candidate.point in {row.point for row in front}:
        return "On the Pareto frontier: no student of this run is at least as fast and as good."
    better = [row for row in front if row.point[0] <= candidate.point[0]][-1]  # the best of those as fast
    return (
        f"Not on the Pareto frontier: candidate {better.id} is as good or better"
        f" ({wording.judged(better)}) and takes {wording.milliseconds(better.point[0])}."
    )


def _layers(seen: CandidateView) -> str | None:
    """What its layers have learnt; None if that is not known."""
    shape = seen.candidate.architecture
    rows = layer_story.standings(seen.losses, shape.layers, shape.hidden_size, seen.layers)
    return layer_story.told(rows, shape.hidden_size) if rows else None
