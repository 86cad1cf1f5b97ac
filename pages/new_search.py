"""The form of a new search: teacher, budget, search space, objective, and the estimated time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests, starting
from kdnas_core.dashboard.home import import_section
from kdnas_core.dashboard.model import time_estimate
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.new_search import (
    latency_form,
    objective_form,
    space_form,
    space_section,
    spec_form,
)
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import ask_button, places, widgets
from kdnas_core.errors import BadInput
from kdnas_core.hardware import devices
from kdnas_core.runs.records import Check
from kdnas_core.spec import ObjectiveSpec, ProxySpec, parse_spec

EPISODES, CANDIDATES = 8, 6  # defaults, well under an hour; the published setting is 15 of 20
PAIRS_HELP = (
    "The share of the texts that become pairs of segments, read as one text with the teacher's marks between."
    " Left empty: none where students are for their vectors, half where they are for fine-tuning."
)
DEVICE_HELP = "Where teacher and students compute. Latency is measured in the runtime of the budget."
PRUNE_HELP = (
    "A candidate is stopped once its loss so far makes it unlikely to be the best for any budget, as others"
    " went on from there. A search that judges by tasks stops none."
)
CONTROLLER_HELP = (
    "Surrogate: predicts losses and their uncertainty, and proposes what is expected to improve the best"
    " students within all budgets. LSTM: as in KD-NAS, it predicts rewards. Optuna's samplers are there to"
    " compare with; latency and loss are their objectives."
)
WARM_HELP = (
    "The surrogate, if it is the controller, begins with the losses of searches in this store of the same"
    " teacher, text, objective and proxy set. What they have judged may be proposed again; with the same seed"
    " its training is remembered."
)
UNTIL_HELP = (
    "After each episode a surrogate of all losses estimates by how much another would lower the best loss"
    " within each budget. The search ends once that is less than 0.3 % for all of them, twice in a row."
)
PASSES_HELP = "Gradients of so many batches are averaged into one step: a larger batch in less memory."
LANGUAGES_HELP = (
    "For several languages: at 1 each is drawn as often as it is large, above that small ones more."
    " The size of a hub data set is not known; each counts as large as the proxy set."
)
TASKS = (
    "Each candidate is fine-tuned for some seconds on a part of a task's training split and judged on"
    " another; the score takes the place of the loss on the frontier. Left empty: by the loss alone."
)
TASKS_HELP = "`packaged`, a folder with train and validation, or `hub:NAME[:CONFIG]`; one a line."
REWARDS = {"kdnas": "distillation loss", "accuracy": "score on the tasks"}


def sources() -> tuple[dict[str, Any], Architecture | None]:
    fields = {"name": st.text_input("Name", "search", max_chars=100)}
    left, right = st.columns(2)
    fields["teacher"] = left.text_input(
        "Teacher",
        "packaged",
        help="`packaged`, a local folder with safetensors weights, or a hub id such as org/name;"
        " of the families BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT and ELECTRA.",
    )
    fields["corpus"] = right.text_input(
        "Corpus",
        "packaged",
        help="`packaged`, `hub:NAME`, `task:NAME` for the training texts of a task, a local .txt, .jsonl,"
        " .csv, .tsv or .parquet file, a folder with one such file a language, or several of these joined"
        " by ` + `.",
    )
    shape = None
    try:
        shape = starting.shape_of(fields["teacher"])
    except BadInput as error:
        widgets.trouble(error)
    else:
        st.markdown(
            "The teacher's shape is read when it is loaded."
            if shape is None
            else f"Teacher: {wording.shape(shape)}"
        )
    return fields, shape


def effort() -> dict[str, Any]:
    st.header("Search")
    left, middle, right = st.columns(3)
    search: dict[str, Any] = {
        "episodes": left.number_input("Episodes", 1, 1_000, EPISODES),
        "candidates": middle.number_input("Candidates an episode", 1, 1_000, CANDIDATES),
        "controller": right.selectbox(
            "Controller", list(wording.CONTROLLERS), format_func=wording.controller, help=CONTROLLER_HELP
        ),
    }
    device = left.selectbox("Computes on", devices(), format_func=wording.device, help=DEVICE_HELP)
    search["prune"] = middle.checkbox("Stop candidates early", True, help=PRUNE_HELP)
    ends = right.checkbox("End when no gain is expected", help=UNTIL_HELP)
    search["until"] = "no_gain" if ends else "episodes"
    search["warm_start"] = left.checkbox("Learn from earlier searches", help=WARM_HELP)
    named, reward = tasks()
    return {"search": {**search, "reward": reward}, "tasks": named, "device": device, **details()}


def details() -> dict[str, Any]:
    usual = ProxySpec()
    with st.expander("Proxy set, mini-KD and seed"):
        left, right = st.columns(2)
        proxy = {
            "sentences": left.number_input("Proxy set (sentences)", 32, 1_000_000, usual.sentences),
            "steps": right.number_input("Steps of mini-KD", 1, 1_000_000, usual.steps),
            "batch_size": left.number_input("Batch size", 1, 1_024, usual.batch_size),
            "sequence_length": right.number_input("Tokens a sentence", 8, 512, usual.sequence_length),
            "accumulation": left.number_input(
                "Passes a step", 1, 1_024, usual.accumulation, help=PASSES_HELP
            ),
            "pairs": left.number_input(
                "Pairs of segments", 0.0, 1.0, None, 0.1, placeholder="usual for the use", help=PAIRS_HELP
            ),
            "language_temperature": right.number_input(
                "Language temperature", 1.0, 1_000.0, usual.language_temperature, 0.5, help=LANGUAGES_HELP
            ),
        }
        seed = st.number_input("Seed", 0, 2**32 - 1, 0)
    return {"proxy": proxy, "seed": seed}


def tasks() -> tuple[list[str], dict[str, str]]:
    """Draws the choice of tasks whose scores replace the loss on the frontier, and of the reward."""
    with st.expander("Judge by tasks"):
        st.markdown(TASKS)
        text = st.text_area("Tasks", "", help=TASKS_HELP, key="tasks")
        mode = st.radio("Reward by", list(REWARDS), format_func=REWARDS.__getitem__, horizontal=True)
    return requests.tasks_of(text) if text.strip() else [], {"mode": mode}


def objective() -> tuple[dict[str, Any], BadInput | None]:
    """Draws the choice of the objective; returns its error, since the space is drawn first."""
    try:
        return objective_form.show(), None
    except BadInput as error:
        return {}, error


def time_needed(db: Path, fields: dict[str, Any], seen: Forecast | None) -> None:
    if seen is None:
        st.markdown("How long it will take is known once the teacher has been loaded.")
        return
    rough = time_estimate.estimate(parse_spec(fields), seen, time_estimate.pace_here(db))
    basis = "at the pace this device had in earlier runs" if rough.measured else "by a rule of thumb"
    st.markdown(
        f"**About {wording.duration(rough.seconds)}**, a rough estimate {basis}:"
        f" {rough.candidates} candidates, {rough.distilled} of them expected within the budget and distilled."
    )


def open_run(check: Check) -> None:
    st.switch_page(places.RUN, query_params={"run": str(check.made[0])})


def by_form(db: Path) -> dict[str, Any]:
    """Draws the form and returns the fields of its spec."""
    fields, shape = sources()
    fields["latency"] = latency_form.show(fields["teacher"], shape)
    above = st.container()
    fields["objective"], refused = objective()
    with above:
        same_heads = ObjectiveSpec(**fields["objective"]).compares_heads
        fields["space"] = space_form.show(fields["teacher"], shape, same_heads)
        seen = None if shape is None else space_section.show(fields, shape)
    if refused is not None:
        raise refused
    fields |= effort()
    time_needed(db, fields, seen)
    return fields


def by_spec(db: Path) -> dict[str, Any]:
    """Draws the text of a spec, and says what it asks for."""
    left, right = st.columns(2)
    with left:
        fields = spec_form.show(db).model_dump()
    with right:
        spec = starting.checked(fields)
        st.markdown(import_section.search_in_words(spec))
        shape = starting.shape_of(spec.teacher)
        time_needed(db, fields, None if shape is None else space_section.show(fields, shape))
    return fields


def page() -> None:
    db = live.database()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title("New search", width="content")
        as_spec = st.toggle("As JSON", "from" in st.query_params, key="as_json")
    try:
        fields = by_spec(db) if as_spec else by_form(db)
    except BadInput as error:
        widgets.trouble(error)
        st.button("Start search", type="primary", disabled=True)
        return
    ask_button.show(
        "Start search",
        "start",
        db,
        lambda: starting.start(db, fields),
        then=open_run,
        refusal="Not started",
    )


page()
