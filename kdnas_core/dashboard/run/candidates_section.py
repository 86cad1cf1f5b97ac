"""The table of a run's candidates, in which selecting a row is the same as clicking a point."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import frontier_section
from kdnas_core.dashboard.ui import links, tables
from kdnas_core.runs.records import Candidate

PAGE = 200  # rows of a table; more would have to be sent anew at each update


def show(snapshot: Snapshot, found: Findings) -> None:
    """Draws the table: all candidates, those of the frontier, or those in the box that was drawn."""
    run = snapshot.run
    boxed = set(frontier_section.boxed(run.id))
    st.header("Candidates")
    with st.container(horizontal=True, vertical_alignment="center"):
        only_frontier = st.toggle("Frontier only", key="frontier_only", bind="query-params")
        if boxed:
            st.markdown(f"{len(boxed)} in the box")
            st.button("Show all", key="unbox", on_click=frontier_section.unbox, args=(run.id,))
            links.to_comparison(sorted(boxed))
    rows = found.frontier if only_frontier else snapshot.candidates
    rows = [row for row in rows if not boxed or row.id in boxed]
    if not rows:
        st.markdown("None of the frontier is in the box." if boxed else "None yet.")
        return
    _downloads(rows, run.id)
    shown = _page(rows, run.id)
    ids = [row.id for row in shown]
    # the frontier can lose rows: a new table then, so that no other row looks selected
    changes = only_frontier or bool(boxed) or len(rows) > PAGE
    table = f"candidates_{run.id}" + ("".join(f"_{row}" for row in ids[:PAGE]) if changes else "")
    st.dataframe(
        tables.candidates_table(shown),
        hide_index=True,
        key=table,
        on_select=lambda: _choose(table, ids),
        selection_mode="single-row",
        placeholder=wording.UNKNOWN,
        column_config=tables.CANDIDATE_COLUMNS,
        alt="Candidates in the order they were proposed; select a row to choose one",
    )


def _downloads(rows: Sequence[Candidate], run: int) -> None:
    """Draws the downloads of all rows that are shown, on whatever page; they are made at a press alone."""
    with st.container(horizontal=True):
        for name, as_file, mime in (
            ("CSV", lambda: tables.candidates_table(rows).to_csv(index=False).encode(), "text/csv"),
            ("Parquet", lambda: tables.as_parquet(tables.candidates_table(rows)), "application/octet-stream"),
        ):
            st.download_button(
                name,
                as_file,
                file_name=f"run-{run}-candidates.{name.lower()}",
                mime=mime,
                key=f"download_{name}",
                on_click="ignore",
                icon=":material/download:",
            )


def _page(rows: Sequence[Candidate], run: int) -> Sequence[Candidate]:
    """The rows of the page of a long table that is looked at, the latest first."""
    if len(rows) <= PAGE:
        return rows
    pages = -(-len(rows) // PAGE)
    page = st.number_input(f"Page of {pages}, the latest first", 1, pages, key=f"page_{run}", width=220)
    end = len(rows) - PAGE * (int(page) - 1)
    return rows[max(0, end - PAGE) : end]


def _choose(table: str, shown: list[int]) -> None:
    candidate = live.selected(st.session_state[table].selection.rows, shown)
    if candidate is not None:
        frontier_section.choose(candidate)
