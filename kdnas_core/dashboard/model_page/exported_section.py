"""The part of a page that shows an export: its folder, checks and latency, code to load it, and its zip."""

from __future__ import annotations

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.package.checks import KEPT, Exported, OnnxCheck, loss_by_int8
from kdnas_core.package.snippets import snippets
from kdnas_core.runs.names import Source


def show(told: Exported, source: Source) -> None:
    """Draws an export, with its checks before the download."""
    st.markdown(f"Exported to `{told.path}`, {_checked(told)}")
    st.markdown(f"sha256 of model.safetensors `{told.sha256}`")
    if told.checks.onnx is not None:
        _show_onnx(told.checks.onnx)
    for note in told.checks.notes:
        st.info(wording.plain(note))
    _show_latencies(told, source.candidate.latency)
    with st.expander("Files and their sha256"):
        st.dataframe(_files(told), hide_index=True, alt="Each file of the export, its size and its sha256")
    with st.expander("How to load it"):
        for title, code in snippets(told.path):
            st.markdown(f"**{title}**")
            st.code(code, language="python")
    st.download_button(
        "Download as zip",
        lambda: controls.zipped(told.path),
        file_name=f"{told.path.name}.zip",
        mime="application/zip",
        on_click="ignore",
        icon=":material/folder_zip:",
    )


def _checked(told: Exported) -> str:
    libraries = ["stock transformers"]
    libraries += ["onnxruntime alone"] if told.has_onnx else []
    libraries += ["sentence-transformers"] if told.has_vectors else []
    *all_but, last = libraries
    named = f"{', '.join(all_but)} and {last}" if all_but else last
    return f"loaded by {named} in a clean process{' each' if all_but else ''}"


def _show_onnx(check: OnnxCheck) -> None:
    st.markdown(f"ONNX in float32 differs from torch by at most `{check.max_difference_fp32:.1e}`")
    sentence = loss_by_int8(check)
    if sentence is not None:
        lost = check.int8_retained is not None and check.int8_retained < KEPT
        (st.warning if lost else st.markdown)(wording.plain(sentence))


def _show_latencies(told: Exported, searched: LatencyReading | None) -> None:
    again = told.checks.latencies
    if not again:
        return
    readings = [
        *([("in the search", searched)] if searched else []),
        *(("this export", r) for r in again.values()),
    ]
    st.dataframe(
        [_latency_row(when, reading) for when, reading in readings],
        hide_index=True,
        alt="The latency in the search, and measured again on the exported files",
    )
    st.markdown(f":small[Measured again on {wording.protocol(next(iter(again.values())))}]")


def _latency_row(when: str, reading: LatencyReading) -> dict[str, str]:
    return {
        "measured": when,
        "runtime": wording.runtime(reading.runtime),
        "p50": wording.milliseconds(reading.p50),
        "p95": wording.milliseconds(reading.p95),
        "speed-up": wording.times(reading.speedup),
        "": "" if reading.clean else "the machine was busy: an upper bound",
    }


def _files(told: Exported) -> list[dict[str, str]]:
    return [
        {
            "file": name,
            "size": wording.size((told.path / name).stat().st_size),
            "sha256": told.checksums.get(name, wording.UNKNOWN),
        }
        for name in told.files
    ]
