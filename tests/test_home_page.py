from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import places, tables
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Job
from kdnas_core.runs.store import Store, opened
from tests.dashboard.test_frontier_figure import candidate
from tests.filled_store import fill
from tests.test_pages import choice, db, shown, words

__all__ = ["db"]  # the fixture


def listed(db: Path, wanted: str = "", *, archived: bool = False) -> list[int]:
    found, count, _ = live.find_runs(db, wanted, None, archived=archived)
    assert count == len(found)
    return [snapshot.run.id for snapshot in found]


@pytest.fixture
def three(db: Path) -> Path:
    for _ in range(3):
        fill(db, episodes=1)
    controls.describe(db, 1, "nightly", "the one for Paris", ["prod", "fr"])
    controls.describe(db, 2, "Nightly two", "", ["prod"])
    return db


def test_searches_are_found_by_all_words_in_name_note_tags_state_and_teacher(three: Path) -> None:
    assert listed(three) == [3, 2, 1]
    assert listed(three, "NIGHTLY prod") == [2, 1]
    assert listed(three, "paris") == [1]
    assert listed(three, "finished minilm") == [3, 2, 1]
    assert listed(three, "nightly nowhere") == []


def test_an_archived_search_is_listed_only_where_it_is_asked_for(three: Path) -> None:
    controls.archive(three, 2, True)
    assert (listed(three), listed(three, archived=True)) == ([3, 1], [2])
    controls.archive(three, 2, False)
    assert listed(three) == [3, 2, 1]


def test_a_run_keeps_its_name_note_and_tags_without_repeats_and_refuses_no_name(db: Path) -> None:
    fill(db, episodes=1)
    controls.describe(db, 1, "  a *name* ", " note ", ["x", " x ", "", "y"])
    run = live.read_run(db, 1).run
    assert (run.name, run.note, run.tags) == ("a *name*", "note", ("x", "y"))
    assert run.spec.name == "quick"  # what was searched does not change
    with pytest.raises(BadInput, match="type one"):
        controls.describe(db, 1, "  ", "", [])
    with pytest.raises(BadInput, match="no run 9"):
        controls.archive(db, 9, True)


@pytest.mark.parametrize("name", ["🐙" * 100, "שלום עולם", "<b>x</b><script>", "[a](http://x) **b** $c$"])
def test_a_run_of_any_name_is_listed_and_shown(db: Path, name: str) -> None:
    fill(db, episodes=1)
    controls.describe(db, 1, name, name, [name])
    app = shown(places.HOME)
    assert list(app.dataframe[0].value["Name"]) == [name]
    assert not shown(places.RUN, run=1).error


def test_without_a_selection_a_run_can_be_opened_and_nothing_be_deleted(db: Path) -> None:
    fill(db, episodes=1)
    labels = [button.label for button in shown(places.HOME).button]
    assert "Open run 1" in labels
    assert not [label for label in labels if label.startswith("Delete")]


def test_the_best_so_far_never_falls_and_is_short() -> None:
    rows = [candidate(number, 4.0, 0.9 - number / 1_000) for number in range(1, 301)]
    line = progress.best_so_far([candidate(400, 4.0, None, "over_budget"), *rows])
    assert len(line) <= 40
    assert line == sorted(line)
    assert line[-1] == pytest.approx(0.4)  # what the search has now
    assert progress.best_so_far([candidate(400, 4.0, None, "over_budget")]) == [0.0]
    assert progress.best_so_far([]) == []


def test_work_of_every_kind_is_listed_in_the_order_in_which_it_is_served(db: Path) -> None:
    run = fill(db, students=True)
    with opened(db) as store:
        waiting = store.create_run(store.run(run).spec)
    works = live.read_jobs(db)
    assert [work.state for work in works[:2]] == ["running", "running"]
    titles = [work.job.title for work in works]
    assert titles.index(Job("runs", waiting).title) == 2
    assert {work.state for work in works} == {"running", "queued", "paused", "failed"}
    table = tables.jobs_table(works)
    assert "Diverged: the loss was nan at step 12." in list(table["Now"])
    assert "Work" in words(shown(places.HOME))


def test_work_that_ends_or_is_deleted_while_it_is_listed_is_left_out(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, episodes=1)  # it is finished
    monkeypatch.setattr(Store, "unfinished", lambda store: [Job("runs", 1), Job("runs", 99)])
    assert live.read_jobs(db) == []


def test_a_size_that_was_chosen_before_does_not_hide_the_run_to_repeat(db: Path) -> None:
    fill(db, episodes=1)
    app = shown(places.NEW_SEARCH, size="Quick")
    app.query_params["from"] = "1"
    app.run()
    [text] = [area for area in app.text_area if area.label == "Spec (JSON)"]
    assert '"name": "quick (again)"' in (text.value or "")
    choice(app, "Size of the search").set_value("Standard").run()
    assert not app.text_area or all(area.label != "Spec (JSON)" for area in app.text_area)


def test_a_search_is_started_anew_from_the_text_of_an_earlier_one(db: Path) -> None:
    fill(db, episodes=1)
    app = shown(places.NEW_SEARCH, **{"from": 1})
    [text] = [area for area in app.text_area if area.label == "Spec (JSON)"]
    assert '"name": "quick (again)"' in (text.value or "")
    assert "The search quick" in words(app)
    assert not app.error
    text.set_value('{"seed": "many"}').run()
    assert "seed" in app.error[0].value
    text.set_value("{").run()
    assert "not JSON" in app.error[0].value
    assert "There is no run 7" in shown(places.NEW_SEARCH, **{"from": 7}).error[0].value


@pytest.mark.parametrize("spec", ['{"name": "newer", "from_the_future": 1}', '{"name": "half', "[]"])
def test_a_run_that_cannot_be_read_is_named_and_hides_no_other(db: Path, spec: str) -> None:
    older, newer = fill(db, episodes=1), fill(db, episodes=1)
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE runs SET spec = ? WHERE id = ?", [spec, newer])
    app = shown(places.HOME)
    assert app.dataframe[0].value["Run"].tolist() == [older]
    assert f"Run {newer} cannot be read, and is kept as it is" in app.warning[0].value
    assert f"Run {newer} cannot be read" in shown(places.RUN, run=newer).error[0].value
    assert f"Run {older} · quick" in words(shown(places.RUN, run=older))
    assert not shown(places.NEW_SEARCH).error
    assert live.newest_run(db) == older
