"""The part of the home page that lists searches: found by words, described, cloned, archived, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui import places, tables, widgets
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.records import Run
from kdnas_core.spec import quick_spec

SHOWN = 20
_IDS, _CHOSEN = "runs_shown", "run_chosen"


@widgets.sentences()
def show(db: Path) -> None:
    """Draws the search field, the table, and what can be done with the run that is selected."""
    widgets.say()
    with st.container(horizontal=True, vertical_alignment="center"):
        wanted = st.text_input(
            "Find searches",
            key="find",
            bind="query-params",
            placeholder="name, tag, note, state, teacher",
            label_visibility="collapsed",
            width=320,
            icon=":material/search:",
        )
        archived = st.toggle("Archived", key="archived", bind="query-params")
    everything = st.session_state.get("all_runs", False)
    most = None if everything else SHOWN
    found, count, unreadable = live.find_runs(db, wanted or "", most, archived=archived)
    for sentence in unreadable:
        st.warning(wording.plain(sentence))
    if not found:
        st.info(_nothing(wanted or "", archived))
        return
    _first_search(db, found)
    st.session_state[_IDS] = [snapshot.run.id for snapshot in found]
    st.dataframe(
        tables.runs_table(found),
        hide_index=True,
        key="runs",
        column_config=tables.RUN_COLUMNS,
        placeholder=wording.UNKNOWN,
        on_select=_remember,
        selection_mode="single-row",
        alt="Searches, newest first: state, candidates judged, time left and the pick within budget",
    )
    _actions(db, found)
    if count > len(found) or everything:
        st.toggle(f"Show all {count}", key="all_runs")


def _nothing(wanted: str, archived: bool) -> str:
    if wanted:
        return "No search has all these words in its name, tags, note, state or teacher."
    if archived:
        return "No search is archived."
    return "No search has been started yet. Give one a latency budget and press start."


def _first_search(db: Path, found: Sequence[Snapshot]) -> None:
    run = found[0].run
    if len(found) > 1 or run.name != quick_spec().name or run.state not in ACTIVE:
        return
    with st.container(border=True, key="first-search"):
        st.markdown(
            "**A quick search was started for you**, with the packaged teacher and corpus, so that there is"
            " something to look at in a few minutes. It goes on in the background when you close this tab."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.page_link(
                places.RUN, label="Watch it", icon=":material/monitoring:", query_params={"run": str(run.id)}
            )
            st.button("Stop it", on_click=widgets.act, args=(controls.stop, db, run.job))


def _remember() -> None:
    row = live.selected(st.session_state["runs"].selection.rows, st.session_state[_IDS])
    if row is not None:
        st.session_state[_CHOSEN] = row


def _actions(db: Path, found: Sequence[Snapshot]) -> None:
    """Draws the buttons for the selected run; without one, for the newest, which can only be opened."""
    runs = {snapshot.run.id: snapshot.run for snapshot in found}
    chosen = runs.get(st.session_state.get(_CHOSEN, 0))
    run = chosen or found[0].run
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(f"Open run {run.id}", icon=":material/arrow_forward:", type="primary"):
            st.switch_page(places.RUN, query_params={"run": str(run.id)})
        if chosen is None:
            st.markdown(":small[Select a row to describe, repeat, archive or delete a search.]")
            return
        if st.button("New search from this", icon=":material/content_copy:"):
            st.switch_page(places.NEW_SEARCH, query_params={"from": str(run.id)})
        _describe(db, run)
        st.button(
            "List it again" if run.archived else "Archive",
            icon=":material/archive:",
            on_click=widgets.do,
            args=(lambda: controls.archive(db, run.id, not run.archived),),
        )
        busy = run.state == "running"
        if st.button(
            f"Delete run {run.id} …",
            icon=":material/delete:",
            disabled=busy,
            help="Stop it first." if busy else None,
        ):
            _confirm_delete(db, run)


def _describe(db: Path, run: Run) -> None:
    with st.popover("Describe", icon=":material/edit:"), st.form(f"describe_{run.id}", border=False):
        name = st.text_input("Name", run.name, max_chars=100)
        tags = st.multiselect("Tags", run.tags, run.tags, accept_new_options=True)
        note = st.text_area("Note", run.note, max_chars=2_000)
        if st.form_submit_button("Save"):
            widgets.do(lambda: controls.describe(db, run.id, name, note, tags))
            st.rerun()


@st.dialog("Delete this run?")
def _confirm_delete(db: Path, run: Run) -> None:
    st.markdown(
        f"Run {run.id} ({wording.plain(run.name)}), its candidates, its students, their weights and their"
        " scores are deleted for good."
    )
    typed = st.text_input(f"Type {run.id} to confirm", key=f"confirm_{run.id}")
    if st.button("Delete for good", type="primary", disabled=typed.strip() != str(run.id)):
        widgets.act(controls.delete, db, run.job)
        st.session_state.pop(_CHOSEN, None)
        st.rerun()
