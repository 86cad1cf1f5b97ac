"""The part of a page that hands a candidate or a student over: its config, its export, and that as a zip."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model_page import exported_section
from kdnas_core.dashboard.ui import widgets
from kdnas_core.package.checks import Exported
from kdnas_core.runs.names import Source

EXPORT_HELP = (
    "Copies config, weights and tokenizer beside the store, loads the copy with stock libraries in clean "
    "processes, and measures its latency again."
)
ONNX_HELP = "In float32 and with 8-bit weights, held against torch; takes about half a minute more."


def show(db: Path, source: Source, folder: Path) -> None:
    """Draws the buttons that hand a candidate or a student over, and where its export is."""
    st.header("Export")
    config = folder / "config.json"
    told = controls.earlier_export(db, source)
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
    elif told is None or not told.has_onnx:
        told = _offer(db, source, told)
    if told is not None:
        exported_section.show(told, source)


def has_weights(source: Source) -> bool:
    """Whether there is anything to export, or to score."""
    return source.candidate.weights if source.student is None else source.student.state == "finished"


def _why_not(source: Source) -> str:
    if source.student is not None:
        return "It has no weights to hand over until its distillation is finished."
    return "Its weights are not kept; by default only students on the Pareto frontier keep theirs."


def _offer(db: Path, source: Source, told: Exported | None) -> Exported | None:
    """The button; of what is exported already only with the ONNX files that it lacks."""
    place = st.empty()  # what is pressed is gone while it is done
    with place.container(horizontal=True, vertical_alignment="center"):
        if told is None:
            with_onnx = st.checkbox("with ONNX files", value=True, help=ONNX_HELP)
            pressed = st.button("Export", type="primary", help=EXPORT_HELP)
        else:
            with_onnx, pressed = True, st.button("Export with ONNX files", help=ONNX_HELP)
    if not pressed:
        return told
    done = _export(db, source, with_onnx)
    if done is not None:
        place.empty()
    return done or told


def _export(db: Path, source: Source, with_onnx: bool) -> Exported | None:
    with st.status("Copying …") as status:

        def say(activity: str) -> None:
            # asked several times a second: it is here that the script ends when the page is left
            status.update(label=f"{wording.plain(activity[0].upper() + activity[1:])} …")

        try:
            told = controls.export(db, source, with_onnx, say)
        except widgets.TOLD as error:
            status.update(label="Not exported", state="error", expanded=True)
            widgets.trouble(error)
            return None
        status.update(label="Exported", state="complete")
        return told
