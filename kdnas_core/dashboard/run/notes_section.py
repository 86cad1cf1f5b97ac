"""The part of a run's page that lists what could not be learnt as the spec has it, and by how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.runs.records import Candidate


def counted(candidates: Sequence[Candidate]) -> list[tuple[str, int]]:
    """Each note once with the number of candidates that carry it, the most frequent first."""
    notes = Counter(note for candidate in candidates for note in dict.fromkeys(candidate.notes))
    return sorted(notes.items(), key=lambda pair: (-pair[1], pair[0]))


def show(candidates: Sequence[Candidate]) -> None:
    """Draws the list, closed; nothing where there is no note."""
    notes = counted(candidates)
    if not notes:
        return
    with st.expander("Notes on candidates"):  # without a count: another label would close it as one arrives
        st.markdown("\n".join(f"- {_candidates(count)} · {wording.plain(note)}" for note, count in notes))


def _candidates(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"
