"""The part of the form for the teacher and the text: packaged, used before, in the cache, or typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import widgets
from kdnas_core.data.corpus import check_corpus
from kdnas_core.errors import BadInput
from kdnas_core.models.sources import cached_teachers

PACKAGED = "packaged"
MOST_RECENT = 20
TEACHER_HELP = (
    "Choose one, or type `packaged`, a local folder with safetensors weights, or a hub id such as org/name;"
    " of the families BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT and ELECTRA."
)
CORPUS_HELP = (
    "Choose one, or type `packaged`, `hub:NAME`, `task:NAME` for the training texts of a task, a local .txt,"
    " .jsonl, .csv, .tsv or .parquet file, a folder with one such file a language, or several of these joined"
    " by ` + `."
)


def show(db: Path) -> tuple[dict[str, Any], Architecture | None]:
    """Draws the choices; returns the fields of a `RunSpec`, and the teacher's shape if it is known yet."""
    specs = live.read_specs(db, MOST_RECENT)
    fields: dict[str, Any] = {"name": st.text_input("Name", "search", max_chars=100)}
    fields["teacher"] = _source(
        "Teacher", [*(spec.teacher for spec in specs), *cached_teachers()], TEACHER_HELP
    )
    shape = _shape(fields["teacher"])
    fields["corpus"] = _source("Corpus", [spec.corpus for spec in specs], CORPUS_HELP)
    try:
        check_corpus(fields["corpus"])
    except BadInput as error:
        widgets.trouble(error)
    return fields, shape


def _source(label: str, known: Sequence[str], help_: str) -> str:
    """The choice among what is packaged and what is known, or typed text."""
    options = list(dict.fromkeys([PACKAGED, *known]))
    typed = st.selectbox(label, options, accept_new_options=True, help=help_, key=f"new_{label.lower()}")
    return (typed or "").strip()


def _shape(teacher: str) -> Architecture | None:
    try:
        shape = starting.shape_of(teacher)
    except BadInput as error:
        widgets.trouble(error)
        return None
    told = "Its shape is read when it is loaded" if shape is None else wording.shape(shape)
    st.markdown(f":small[{told}]")
    return shape
