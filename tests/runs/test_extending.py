from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.runs.extending import extended, is_within_now
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Run
from kdnas_core.runs.store import opened
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import METHOD, LatencySpec, quick_spec
from tests.filled_store import fill
from tests.sentences import is_one_sentence


@pytest.fixture
def db(tmp_path: Path) -> Path:
    fill(tmp_path / "runs.db")
    return tmp_path / "runs.db"


@pytest.fixture
def run(db: Path) -> Run:
    with opened(db, read_only=True) as store:
        return store.run(1)


def rows(db: Path, run: int) -> list[dict[str, Any]]:
    with opened(db, read_only=True) as store:
        return [row.to_dict() for row in store.candidates(run)]


def test_a_search_goes_on_with_more_episodes_another_space_and_other_budgets(run: Run) -> None:
    settings = ["space.layers=[1,2]", "latency.budget_speedup=[3,5]", "search.until=no_gain", "name=more"]
    spec = extended(run, 4, settings)
    assert spec.search.episodes == run.episode + 4
    assert (spec.space.layers, spec.latency.amounts, spec.search.until) == ([1, 2], (3.0, 5.0), "no_gain")
    # it has another episode, whatever was expected of it
    assert spec.search.least_episodes == run.episode + 1


def test_a_search_that_was_paused_keeps_the_episodes_that_it_was_to_have(run: Run) -> None:
    search = run.spec.search.model_copy(update={"episodes": 15})
    run = replace(run, spec=run.spec.model_copy(update={"search": search}))
    assert extended(replace(run, state="paused"), 3, []).search.episodes == 18
    assert extended(run, 3, []).search.episodes == run.episode + 3  # it has ended before its last episode


def test_more_episodes_than_a_search_may_have_are_refused(run: Run) -> None:
    with pytest.raises(BadInput, match=r"search\.episodes"):
        extended(run, 1_000, [])
    with pytest.raises(BadInput, match="--episodes"):
        extended(run, 1, ["search.episodes=20"])


@pytest.mark.parametrize(
    "setting",
    [
        "proxy.steps=20",
        "objective.recipe=kdnas",
        "seed=3",
        "latency.sequence_length=64",
        'tasks=["packaged"]',
    ],
)
def test_what_decides_a_loss_or_a_latency_cannot_change(run: Run, setting: str) -> None:
    with pytest.raises(BadInput) as refused:
        extended(run, 1, [setting])
    assert setting.partition("=")[0] in str(refused.value)
    assert is_one_sentence(str(refused.value))


def test_the_space_of_a_supernet_cannot_change(run: Run) -> None:
    objective = run.spec.objective.model_copy(update={"start": "supernet"})
    run = replace(run, spec=run.spec.model_copy(update={"objective": objective}))
    with pytest.raises(BadInput, match="cut out of a supernet of its space"):
        extended(run, 1, ["space.layers=[1,2]"])
    assert extended(run, 1, ["latency.budget_speedup=3"]).latency.amounts == (3.0,)


def test_a_run_that_is_worked_on_or_was_judged_elsewhere_cannot_be_extended(db: Path, run: Run) -> None:
    with pytest.raises(BadInput, match="pause it"):
        extended(replace(run, state="running"), 1, [])
    with pytest.raises(BadInput, match="judged elsewhere"):
        extended(replace(run, method=METHOD - 1), 1, [])
    with opened(db) as store:
        queued = store.create_run(quick_spec())
        with pytest.raises(BadInput, match="pause it"):
            store.extend(queued, quick_spec())


def test_a_larger_budget_has_what_is_within_it_judged_again(db: Path, run: Run) -> None:
    before = rows(db, 1)
    over = [row for row in before if row["state"] == "over_budget"]
    larger = extended(run, 1, ["latency.budget_speedup=1.5"])
    within = [row["id"] for row in over if row["speedup"] >= 1.5]
    assert 0 < len(within) < len(over)
    with opened(db) as store:
        store.set_outlook(1, Outlook(4, 0.1, (0.5,)))
        store.extend(1, larger, Worker.this_process())
        row = store.run(1)
        assert (row.state, row.spec, row.outlook) == ("running", larger, None)
    changed = [(old, new) for old, new in zip(before, rows(db, 1), strict=True) if old != new]
    assert [old["id"] for old, _ in changed] == within
    assert {(new["state"], new["reward"]) for _, new in changed} == {("proposed", None)}


def test_what_was_not_measured_may_be_within_a_budget_that_its_estimate_is_near(db: Path, run: Run) -> None:
    with opened(db, read_only=True) as store:
        candidate = next(row for row in store.candidates(1) if row.state == "over_budget")
    spec = run.spec.model_copy(update={"latency": LatencySpec(budget_ms=10.0)})
    for estimated_ms, may_be in ((9.0, True), (14.0, True), (16.0, False)):
        guessed = replace(candidate, latency=None, estimated_ms=estimated_ms)
        assert is_within_now(guessed, spec, 20.0) == may_be


def test_a_smaller_budget_leaves_all_as_it_was_judged(db: Path, run: Run) -> None:
    before = rows(db, 1)
    smaller = extended(run, 1, ["latency.budget_speedup=4"])
    with opened(db) as store:
        store.extend(1, smaller)
        assert store.run(1).state == "queued"
    assert rows(db, 1) == before
