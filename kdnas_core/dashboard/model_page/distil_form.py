"""The forms of a new student: a full distillation of a candidate, or of a student for a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model import time_estimate
from kdnas_core.dashboard.ui import ask_button
from kdnas_core.distillation.recipes import terms_of
from kdnas_core.runs.records import Candidate, Run, Student
from kdnas_core.spec import WORDS, DistilSpec, ObjectiveSpec, Recipe

USUAL = DistilSpec()
TASK_EPOCHS = 3.0
TEXTS_TOLD = 10_000
RECIPES = [None, *(name for name in get_args(Recipe) if name != "custom")]
OF_THE_TEACHER = (
    "The teacher reads them once, for all students that learn from the same layers; each time where its"
    " outputs are larger than 8 GiB or than the disk has room for, or where words are masked."
)
PAIRS_HELP = (
    "The share of the texts that become pairs of segments, read as one text: for tasks that weigh two texts"
    " against each other."
)
CORPUS_HELP = "As on the form of a search; empty: the corpus of the search."
GO_ON_HELP = "As the corpus on the form of a search."
TASK_HELP = "`packaged`, a folder with train and validation, or a data set such as `hub:nyu-mll/glue:sst2`."
AUGMENT_HELP = "Variants of each row, with words that a masked-LM head or word vectors hold for likely."
GLOVE_HELP = "A file of word vectors in GloVe's text format, for words of several pieces; may stay empty."


@st.fragment(key="distil_form")
def show(db: Path, run: Run, candidate: Candidate) -> None:
    """Draws the form of a full distillation of a candidate, and describes what it will read."""
    if candidate.state == "over_budget":
        st.warning("This candidate misses the run's latency budget, and so will a student made from it.")
    if candidate.state == "pruned":
        st.warning("This candidate was stopped early: by its first steps, others of this run are better.")
    fields = _choices(run, candidate.id)
    st.markdown(reading(fields, run, candidate))
    ask_button.show(
        "Distil in full",
        f"distil_{candidate.id}",
        db,
        lambda: requests.distil(db, [str(candidate.id)], fields),
    )


def reading(fields: dict[str, Any], run: Run, candidate: Candidate) -> str:
    """Describes what a full distillation reads, and the time that it takes if known from the mini-KD."""
    often, length = fields["epochs"], fields["sequence_length"]
    times = "once" if often == 1 else f"{often:g} times"
    corpus = wording.plain(fields["corpus"] or run.spec.corpus)
    of_many_lengths = USUAL.cuts_pieces(run.spec.objective.use)
    cut = f"cut into pieces of up to {length}" if of_many_lengths else f"each cut at {length}"
    told = (
        f"Reads the corpus {corpus} **{times}**, at most {fields['sentences']:,} texts of it,"
        f" {cut} tokens. {OF_THE_TEACHER}"
    )
    seconds = time_estimate.seconds_of_texts(TEXTS_TOLD, run, candidate, length)
    if seconds is None:
        return told
    first, later = (wording.duration(each) for each in seconds)
    known = "" if _masks_words(fields, run, candidate) else f" {later} once the teacher has read them,"
    pace = "by the pace of this candidate's mini-KD"
    return f"{told} **About {first} for {TEXTS_TOLD:,} texts**,{known} {pace}."


def _masks_words(fields: dict[str, Any], run: Run, candidate: Candidate) -> bool:
    recipe = fields.get("recipe")
    objective = ObjectiveSpec(recipe=recipe) if recipe else run.spec.objective
    assert run.teacher is not None
    terms = terms_of(objective, candidate.architecture, run.teacher.architecture)
    return any(term.kind in WORDS for term in terms)


def _choices(run: Run, of: int) -> dict[str, Any]:
    # keys by candidate: what was typed for one is not asked for of the next
    first, second, third, fourth = st.columns(4)
    searched = wording.objective(run.spec.objective)
    fields = {
        "epochs": first.number_input(
            "Epochs",
            0.1,
            1_000.0,
            USUAL.epochs,
            1.0,
            help="Passes over the texts.",
            key=f"distil_epochs_{of}",
        ),
        "recipe": second.selectbox(
            "Recipe",
            RECIPES,
            format_func=lambda name: wording.recipe(name) if name else f"As in the search ({searched})",
            key=f"recipe_{of}",
        ),
        "sequence_length": third.number_input(
            "Tokens a text", 8, 512, USUAL.sequence_length, key=f"tokens_{of}"
        ),
        "learning_rate": fourth.number_input(
            "Learning rate", 1e-7, 1.0, USUAL.learning_rate, 1e-4, format="%g", key=f"rate_{of}"
        ),
    }
    return fields | _more(run, of)


def _more(run: Run, of: int) -> dict[str, Any]:
    with st.expander("Corpus, texts and batches"):
        left, right = st.columns(2)
        return {
            "corpus": left.text_input(
                "Corpus",
                placeholder=f"as in the search: {run.spec.corpus}",
                help=CORPUS_HELP,
                key=f"corpus_{of}",
            ),
            "sentences": right.number_input(
                "Texts at most", 48, 1_000_000, USUAL.sentences, key=f"texts_{of}"
            ),
            "batch_size": left.number_input("Batch size", 1, 1_024, USUAL.batch_size, key=f"batch_{of}"),
            "seed": right.number_input("Seed", 0, 2**32 - 1, USUAL.seed, key=f"seed_{of}"),
            "pairs": left.number_input(
                "Pairs of segments",
                0.0,
                1.0,
                None,
                0.1,
                placeholder="as in the search",
                help=PAIRS_HELP,
                key=f"pairs_{of}",
            ),
        }


@st.fragment(key="task_form")
def show_for_task(db: Path, student: Student) -> None:
    """Draws the form that makes a student task-specific."""
    st.header("Make it task-specific")
    st.markdown(
        "TinyBERT's second stage: a new student begins with these weights and learns one task from the"
        " teacher that was fine-tuned on it."
    )
    fields = _task_choices(student.name)
    ask_button.show(
        "Distil for the task",
        f"task_{student.id}",
        db,
        lambda: requests.distil(db, [student.name], fields),
        disabled=not fields["task"].strip(),
    )


@st.fragment(key="go_on_form")
def show_to_go_on(db: Path, run: Run, student: Student) -> None:
    """Draws the form that distils a student further, on other text."""
    st.header("Go on with other text")
    st.markdown(
        "A new student begins with these weights and is distilled in full on the text that you name. What"
        " this one was scored on is scored again, so that you see what it forgets."
    )
    corpus = st.text_input(
        "Text", placeholder=f"other than {run.spec.corpus}", help=GO_ON_HELP, key=f"more_text_{student.id}"
    )
    left, middle, right = st.columns(3)
    fields = {
        "corpus": corpus.strip(),
        "epochs": left.number_input(
            "Passes", 0.1, 1_000.0, 1.0, 1.0, help="Over the texts.", key=f"passes_{student.id}"
        ),
        "sequence_length": middle.number_input(
            "Tokens a text", 8, 512, student.spec.sequence_length, key=f"more_tokens_{student.id}"
        ),
        "learning_rate": right.number_input(
            "Learning rate",
            1e-7,
            1.0,
            student.spec.learning_rate,
            1e-4,
            format="%g",
            key=f"more_rate_{student.id}",
        ),
    }
    ask_button.show(
        "Go on",
        f"go_on_{student.id}",
        db,
        lambda: requests.distil(db, [student.name], fields),
        disabled=not fields["corpus"],
    )


def _task_choices(of: str) -> dict[str, Any]:
    left, right = st.columns([2, 1])
    task = left.text_input("Task", "packaged", help=TASK_HELP, key=f"task_of_{of}")
    epochs = right.number_input(
        "Epochs",
        0.1,
        1_000.0,
        TASK_EPOCHS,
        1.0,
        help="Passes over rows and variants.",
        key=f"task_epochs_{of}",
    )
    augment = st.checkbox("Augment the rows", value=USUAL.augment, help=AUGMENT_HELP, key=f"augment_{of}")
    left, right = st.columns([2, 1])
    glove = left.text_input(
        "Word vectors", placeholder="none", disabled=not augment, help=GLOVE_HELP, key=f"glove_{of}"
    )
    copies = right.number_input(
        "Variants of a row at most", 1, 100, USUAL.copies, disabled=not augment, key=f"copies_{of}"
    )
    chosen = {"task": task.strip(), "epochs": epochs, "augment": augment}
    return chosen | ({"glove": glove.strip(), "copies": copies} if augment else {})
