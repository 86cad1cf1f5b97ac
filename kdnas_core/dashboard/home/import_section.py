"""The part of the home page that imports a search or an exported student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.ui import ask_button, links, places, widgets
from kdnas_core.package.import_ import Imported, Tell, import_student
from kdnas_core.package.manifest import Found, Manifest, look
from kdnas_core.spec import RunSpec, SpaceSpec

LONGEST_TITLE = 80
_LISTED = 12
INTRODUCTION = (
    "Drop the **run.json** of a search to run the same search here, or the **zip** of an exported student to"
    " score it, distil it further and export it again. A zip of more than 1 GB:"
    " `python -m kdnas_core import FILE`."
)
_BUSY, _REFUSED, _DONE = "import_busy", "import_refused", "import_done"


def show(db: Path) -> None:
    """Draws the upload field, the content of the file, and the buttons for it."""
    with st.expander("Bring back a search or a student", icon=":material/upload_file:", key="import"):
        st.markdown(INTRODUCTION)
        given = st.file_uploader(
            "A run.json, or the zip of a student", type=["json", "zip"], key="import_file"
        )
        if given is None:
            st.session_state.pop(_REFUSED, None)
            return
        try:
            found = look(given, title_of(given.name))
        except widgets.TOLD as error:
            widgets.trouble(error)
            return
        _offer(db, given, found)


def title_of(name: str) -> str:
    """Shortens the name of an uploaded file for messages, and keeps its end, which has the file type."""
    return " ".join(name.split())[-LONGEST_TITLE:]


def search_in_words(spec: RunSpec) -> str:
    """Describes a search, as Markdown."""
    objective = f"{wording.objective(spec.objective)}, {spec.proxy.steps:,} steps a candidate"
    search = spec.search
    facts = {
        "Teacher": wording.plain(spec.teacher),
        "Corpus": wording.plain(spec.corpus),
        "Search space": space_in_words(spec.space),
        "Latency budget": wording.budget(spec.latency, None),
        "Mini-KD": objective,
        "Search": f"{search.episodes} episodes of {search.candidates} candidates",
        "Controller": wording.controller(search.controller),
        "Seed": str(spec.seed),
    }
    if spec.tasks:
        facts["Tasks"] = ", ".join(wording.plain(wording.task(task)) for task in spec.tasks)
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([f"**The search {wording.plain(spec.name)}**", "", *lines])


def space_in_words(space: SpaceSpec) -> str:
    """Describes the choices of a search space."""
    chosen = space.model_dump(exclude_none=True)
    if not chosen:
        return "derived from the teacher"
    knobs = {"presets": "published students"}
    return "; ".join(
        f"{knobs.get(knob, knob.replace('_', ' '))} {_in_short(choices)}" for knob, choices in chosen.items()
    )


def _in_short(choices: Sequence[object]) -> str:
    """Lists choices; of many, the first and the last."""
    if len(choices) > _LISTED:
        return f"{choices[0]} to {choices[-1]} ({len(choices)} sizes)"
    return ", ".join(map(str, choices))


def student_in_words(manifest: Manifest) -> str:
    """Describes an exported student, as Markdown."""
    student, judged = manifest.student, manifest.candidate
    how = "" if student is None else wording.distillation(student.spec, manifest.spec.objective)
    title = "A candidate of a search" if student is None else f"A student, distilled: {wording.plain(how)}"
    tasks = len({score.task for score in manifest.scores})
    loss = wording.number(judged.loss if student is None else student.loss)
    lines = [
        f"**{title}**",
        "",
        f"- {wording.shape(manifest.architecture)}",
        f"- {wording.count(judged.parameters)} parameters · loss {loss}"
        f" · {f'{tasks} tasks' if tasks != 1 else '1 task'} scored",
    ]
    if judged.latency is not None:
        measured = wording.plain(wording.protocol(judged.latency))
        lines.append(f"- {wording.milliseconds(judged.latency.p50)} p50, measured on {measured}")
    return "\n".join(lines)


def _offer(db: Path, given: UploadedFile, found: Found) -> None:
    if found.manifest is not None:
        st.markdown(student_in_words(found.manifest))
        _offer_student(db, given)
    st.markdown(search_in_words(found.spec))
    ask_button.show(
        "Start this search",
        "import_search",
        db,
        lambda: starting.start(db, found.spec.model_dump()),
        then=lambda check: st.switch_page(places.RUN, query_params={"run": str(check.made[0])}),
        refusal="Not started",
        disabled=_BUSY in st.session_state,
    )


def _offer_student(db: Path, given: UploadedFile) -> None:
    key = f"import_student_{given.file_id}"
    done: Imported | None = st.session_state.get(f"{key}{_DONE}")
    if done is None:
        _button(
            "Import this student",
            key,
            "Not imported",
            lambda tell: import_student(
                db, given, title_of(given.name), lambda activity: tell(f"{activity} …")
            ),
        )
        return
    st.success(f"Imported as run {done.run}, with the weights that were exported (sha256 `{done.sha256}`).")
    if done.student is None:
        links.to_candidate(done.candidate, f"Open candidate {done.candidate}")
    else:
        links.to_student(done.student, f"Open student s{done.student}")


def _button(label: str, key: str, refusal: str, act: Callable[[Tell], object]) -> None:
    """Draws a button that disables all buttons while `act` runs, and saves its result."""
    busy = st.session_state.get(_BUSY)
    st.button(label, key=key, type="primary", on_click=_press, args=(key,), disabled=busy is not None)
    if st.session_state.get(_REFUSED, ("", ""))[0] == key:
        widgets.trouble(st.session_state[_REFUSED][1])
    if busy == key:
        _act(key, refusal, act)


def _press(key: str) -> None:
    st.session_state[_BUSY] = key
    st.session_state.pop(_REFUSED, None)


def _act(key: str, refusal: str, act: Callable[[Tell], object]) -> None:
    with st.status("Checking …", expanded=True):
        try:
            st.session_state[f"{key}{_DONE}"] = act(st.write)
        except widgets.TOLD as error:
            st.session_state[_REFUSED] = (key, f"{refusal}. {error}")
        finally:
            st.session_state.pop(_BUSY, None)
    st.rerun()
