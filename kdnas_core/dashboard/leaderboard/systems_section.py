"""The leaderboard: the choice of a group, the figure, the table, and the published students."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.leaderboard import systems_tables
from kdnas_core.dashboard.model import systems
from kdnas_core.dashboard.model.systems import Group, System
from kdnas_core.dashboard.read.live_students import SystemView
from kdnas_core.dashboard.ui import places, systems_figure
from kdnas_core.dashboard.ui.charts import CONFIG

CHANCE_HELP = (
    "Naming the most frequent class scores something on most tasks. It is subtracted from the scores of"
    " fine-tuned models, the teacher's too. Tasks of which it is not known are left out, and those of which"
    " the teacher itself is hardly above it."
)


def show(views: Sequence[SystemView]) -> None:
    """Draws the systems of one teacher and one way of scoring."""
    group, some = _group(systems.groups(views))
    if differing := systems.disagreements(some):
        st.warning(
            f"The teacher's own scores of {wording.plain(', '.join(differing))} differ between scorings: the"
            " name may stand for other data in one of them, and then its column does not compare."
        )
    everything: Sequence[System] = systems.systems_of(some)
    is_above = st.toggle("Subtract chance", key="above_chance", bind="query-params", help=CHANCE_HELP)
    if is_above:
        above = _above_chance(everything)
        is_above, everything = above is not everything, above
    rows = _rows(everything)
    subtracted = " Chance is subtracted." if is_above else ""
    st.markdown(_words(group, rows) + subtracted)
    _figure(rows, is_above)
    _table(rows)


def _above_chance(everything: Sequence[System]) -> Sequence[System]:
    """Subtracts chance where it is known, and says where it is not."""
    tasks = systems.tasks_of(everything)
    unknown = [task for task in tasks if any(task not in system.chances for system in everything)]
    if unknown:
        st.info(
            f"The chance of {wording.plain(', '.join(unknown))} is not known; an earlier version scored it."
            + (" Score again." if len(unknown) == len(tasks) else " It is left out.")
        )
    return everything if len(unknown) == len(tasks) else systems.above_chance(everything)


def _group(found: dict[Group, list[SystemView]]) -> tuple[Group, list[SystemView]]:
    choices = list(found)
    if len(choices) == 1:
        return choices[0], found[choices[0]]
    titles = [group.title for group in choices]
    # two teachers of the same name from different sources
    named = [
        title if titles.count(title) == 1 else f"{title} · {group.source}"
        for group, title in zip(choices, titles, strict=True)
    ]
    place = st.selectbox(
        "Teacher, and how was scored", range(len(choices)), format_func=named.__getitem__, key="systems_group"
    )
    return choices[place], found[choices[place]]


def _rows(everything: Sequence[System]) -> list[System]:
    left, right = st.columns([2, 1])
    tasks = left.multiselect(
        "Only systems scored on",
        systems.tasks_of(everything),
        placeholder="any task",
        key="systems_tasks",
        help="Averages are over the tasks that all rows have: fewer rows may share more tasks.",
    )
    order: systems_tables.Order = right.radio("Sort by", ["retained %", "speed-up"], horizontal=True)
    return systems_tables.ordered(systems.scored_on(everything, tasks), order)


def _words(group: Group, rows: Sequence[System]) -> str:
    tuned, in_all = systems.tasks_of(rows), systems.shared_tasks(rows)
    shared = [wording.plain(task) for task in in_all]
    left_out = [wording.plain(task) for task in tuned if task not in in_all]
    told = f"Teacher and way of scoring: {wording.plain(group.title)}. Scores are times 100."
    if not tuned:
        return f"{told} Nothing was fine-tuned for them, so that there is no average."
    if not shared:
        return f"{told} No task is shared by all rows, so that there is no average: choose tasks above."
    told = f"{told} **Average over {', '.join(shared)}**, which all fine-tuned rows were scored on"
    return f"{told}; not over {', '.join(left_out)}." if left_out else f"{told}."


def _figure(rows: Sequence[System], is_above: bool) -> None:
    st.plotly_chart(
        systems_figure.systems_figure(rows, above_chance=is_above),
        key="systems_figure",
        config=CONFIG,
        alt=f"Speed-up against retained share of the teacher's average, of {len(rows)} systems,"
        " with the published students as hollow marks",
    )


def _table(rows: Sequence[System]) -> None:
    st.dataframe(
        systems_tables.systems_table(rows),
        hide_index=True,
        key="systems_table",
        placeholder=wording.UNKNOWN,
        column_config=systems_tables.system_columns(rows),
        alt="Systems with their sizes, speed-ups, scores on tasks and averages",
    )
    _links(rows)


def _links(rows: Sequence[System]) -> None:
    named = {row.of: row for row in rows if row.of}
    if not named:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of = st.selectbox("System", named, format_func=lambda of: f"{named[of].name} ({of})", width=360)
        noun, page = ("student", places.STUDENT) if of.startswith("s") else ("candidate", places.CANDIDATE)
        if st.button(f"Open {noun} {of}", icon=":material/arrow_forward:", key="open_system"):
            st.switch_page(page, query_params={noun: of.removeprefix("s")})


def show_published() -> None:
    """Draws the published students in a separate table, since their teacher is another one."""
    st.header("Published students")
    st.dataframe(
        systems_tables.published_table(),
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config=systems_tables.PUBLISHED_COLUMNS,
        alt="Published students with the figures that were published of them",
    )
    st.markdown(systems_tables.PUBLISHED_WORDS)
