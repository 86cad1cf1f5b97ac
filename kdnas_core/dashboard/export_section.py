"""The part of a page that hands a candidate or a student over: its config, its export, and that as a zip."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import controls, widgets
from kdnas_core.export import Exported
from kdnas_core.runs.sources import Source

EXPORT_HELP = (
    "Copies config, weights and tokenizer beside the store, and loads the copy with stock transformers."
)


def show(db: Path, source: Source, folder: Path) -> None:
    """Draws the buttons that hand a candidate or a student over, and where its export is."""
    st.header("Export")
    config = folder / "config.json"
    told = controls.earlier_export(db, source)
    with st.container(horizontal=True):
        if config.is_file():
            st.download_button(
                "Download config.json",
                config.read_bytes(),
                file_name=f"{source.title.lower().replace(' ', '-')}-config.json",
                mime="application/json",
                on_click="ignore",
                icon=":material/download:",
            )
        able = has_weights(source)
        pressed = able and told is None and st.button("Export", type="primary", help=EXPORT_HELP)
    if not able:
        st.markdown(_why_not(source))
    told = _export(db, source) if pressed else told
    if told is not None:
        _show_exported(told)


def has_weights(source: Source) -> bool:
    """Whether there is anything to export, or to score."""
    return source.candidate.weights if source.student is None else source.student.state == "finished"


def _why_not(source: Source) -> str:
    if source.student is not None:
        return "It has no weights to hand over until its distillation is finished."
    return "Its weights are not kept; by default only students on the Pareto frontier keep theirs."


def _export(db: Path, source: Source) -> Exported | None:
    with st.status("Copying, and loading the copy in a clean process …") as status:
        try:
            told = controls.export(db, source)
        except widgets.TOLD as error:
            status.update(label="Not exported", state="error", expanded=True)
            widgets.trouble(error)
            return None
        status.update(label="Exported", state="complete")
        return told


def _show_exported(told: Exported) -> None:
    verified = "loaded by stock transformers in a clean process" if told.verified else "not verified"
    st.markdown(f"Exported to `{told.path}`, {verified}")
    st.markdown(f"sha256 of model.safetensors `{told.sha256}`")
    st.markdown(f":small[{', '.join(told.files)}]")
    st.download_button(
        "Download as zip",
        lambda: controls.zipped(told.path),
        file_name=f"{told.path.name}.zip",
        mime="application/zip",
        on_click="ignore",
        icon=":material/folder_zip:",
    )
