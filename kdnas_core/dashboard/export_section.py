"""The part of a candidate's page that hands it over: its config, its export, and that as a zip."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import controls, widgets
from kdnas_core.dashboard.live import CandidateView
from kdnas_core.export import Exported

EXPORT_HELP = (
    "Copies config, weights and tokenizer beside the store, and loads the copy with stock transformers."
)


def show(db: Path, seen: CandidateView) -> None:
    """Draws the buttons that hand a candidate over, and where its export is."""
    st.header("Export")
    candidate, config = seen.candidate, seen.folder / "config.json"
    told = controls.earlier_export(db, seen.run.id, candidate.id)
    with st.container(horizontal=True):
        if config.is_file():
            st.download_button(
                "Download config.json",
                config.read_bytes(),
                file_name=f"candidate-{candidate.id}-config.json",
                mime="application/json",
                on_click="ignore",
                icon=":material/download:",
            )
        pressed = candidate.weights and told is None and st.button("Export", type="primary", help=EXPORT_HELP)
    if not candidate.weights:
        st.markdown("Its weights are not kept; by default only students on the Pareto frontier keep theirs.")
    told = _export(db, seen) if pressed else told
    if told is not None:
        _show_exported(told)


def _export(db: Path, seen: CandidateView) -> Exported | None:
    with st.status("Copying, and loading the copy in a clean process …") as status:
        try:
            told = controls.export(db, seen.run.id, seen.candidate.id)
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
