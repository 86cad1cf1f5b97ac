"""The part of the form for how a search proceeds: its length, controller, mini-KD and tasks."""

from __future__ import annotations

from typing import Any

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.new_search.sizes import CANDIDATES, EPISODES
from kdnas_core.hardware import devices
from kdnas_core.spec import ProxySpec

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


def show() -> dict[str, Any]:
    """Draws the choices and returns the fields of a `RunSpec`."""
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
    named, reward = _tasks()
    return {"search": {**search, "reward": reward}, "tasks": named, "device": device, **_details()}


def _details() -> dict[str, Any]:
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


def _tasks() -> tuple[list[str], dict[str, str]]:
    """Draws the choice of tasks whose scores replace the loss on the frontier, and of the reward."""
    with st.expander("Judge by tasks"):
        st.markdown(TASKS)
        text = st.text_area("Tasks", "", help=TASKS_HELP, key="tasks")
        mode = st.radio("Reward by", list(REWARDS), format_func=REWARDS.__getitem__, horizontal=True)
    return requests.tasks_of(text) if text.strip() else [], {"mode": mode}
