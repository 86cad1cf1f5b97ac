"""The part of a run's page that lists the notes on candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.runs.records import Candidate


def counted(candidates: Sequence[Candidate]) -> list[tuple[str, int]]:
    """Returns each note with the number of candidates that have it, the most frequent first."""
    noted = (candidate.notes for candidate in candidates if candidate.notes)
    notes = Counter(note for some in noted for note in dict.fromkeys(some))
    return sorted(notes.items(), key=lambda pair: (-pair[1], pair[0]))


def show(candidates: Sequence[Candidate]) -> None:
    """Draws the list, collapsed; nothing if there are no notes."""
    notes = counted(candidates)
    if not notes:
        return
    with st.expander("Notes on candidates"):  # without a count: a change of the label would collapse it
        st.markdown("\n".join(f"- {_candidates(count)} · {wording.plain(note)}" for note, count in notes))


def _candidates(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"
