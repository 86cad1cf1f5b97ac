"""The part of a page that exports a candidate or a student, with downloads of its config and its zip."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model_page import exported_section
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.ui import widgets, work_controls
from kdnas_core.package.checks import Exported
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import Export
from kdnas_core.spec import Format

EXPORT_HELP = (
    "Copies config, weights and tokenizer beside the store, loads the copy with stock libraries in clean "
    "processes, and measures its latency again."
)
ONNX_HELP = "In float32 and with 8-bit weights, held against torch; takes about half a minute more."


FORMATS: dict[Format, str] = {"hf": "transformers", "onnx": "ONNX", "zip": "zip"}


def show(db: Path, source: Source, folder: Path) -> None:
    """Draws the download of the config, the button to export, and the last export."""
    st.header("Export")
    config = folder / "config.json"
    if config.is_file():
        st.download_button(
            "Download config.json",
            config.read_bytes(),
            file_name=f"{source.title.lower().replace(' ', '-')}-config.json",
            mime="application/json",
            on_click="ignore",
            icon=":material/download:",
        )
    if not has_weights(source):
        st.markdown(_why_not(source))
        return
    refresh = refresh_s(live_students.read_export(db, source), controls.earlier_export(db, source))
    st.fragment(_exports, run_every=refresh, key="exports")(db, source, refresh)


def refresh_s(export: Export | None, told: Exported | None) -> float | None:
    """Returns the seconds until an export is read again.

    Returns None beside a complete export unless another is at work: Streamlit drops a deferred download
    with each run of its fragment, and a click on the dropped one is lost.
    """
    work = [] if export is None else [export]
    at_work = any(row.state in ACTIVE for row in work)
    return live.refresh_s(work) if at_work or told is None else None


def has_weights(source: Source) -> bool:
    """Returns whether a source has weights to export or to score."""
    return source.candidate.weights if source.student is None else source.student.state == "finished"


def _why_not(source: Source) -> str:
    if source.student is not None:
        return "It has no weights to hand over until its distillation is finished."
    if source.candidate.state == "pruned":
        return "It was stopped early and has no weights; distil it in full, and export that student."
    return "Its weights are not kept; by default only students on the Pareto frontier keep theirs."


@widgets.sentences()
def _exports(db: Path, source: Source, refresh: float | None) -> None:
    """Draws the button or the running export, and the last complete export."""
    export, told = live_students.read_export(db, source), controls.earlier_export(db, source)
    if refresh_s(export, told) != refresh:
        # only a run of the whole page changes the refresh time of a fragment; no download is drawn before
        st.rerun()
    widgets.say()
    is_over = export is None or export.state in ("finished", "failed", "stopped")
    if export is not None and export.state != "finished" and not (is_over and told is not None):
        _at_work(db, export)
    if is_over and (told is None or not told.has_onnx):
        _offer(db, source, told)
    if told is not None:
        exported_section.show(told, source)


def _at_work(db: Path, export: Export) -> None:
    with st.container(border=True, key=f"export_{export.id}_card"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Export** · {' and '.join(FORMATS[each] for each in export.spec.formats)}")
            widgets.state_badge(export)
            work_controls.change(db, export)
        work_controls.trouble(export)
        if export.state == "running":
            activity = export.activity or "starting"
            st.markdown(f":material/progress_activity: {wording.plain(activity[0].upper() + activity[1:])} …")


def _offer(db: Path, source: Source, told: Exported | None) -> None:
    """Draws the button; after an export without ONNX files, it makes one with them."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if told is None:
            with_onnx = st.checkbox("with ONNX files", value=True, help=ONNX_HELP)
            label, help_, kind = "Export", EXPORT_HELP, "primary"
        else:
            with_onnx, label, help_, kind = True, "Export with ONNX files", ONNX_HELP, "secondary"
        st.button(
            label,
            type=kind,  # type: ignore[arg-type]
            help=help_,
            on_click=widgets.do,
            args=(lambda: controls.export(db, source, with_onnx),),
        )
