from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.runs.extending import allows_more, extended
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Run
from kdnas_core.runs.store import opened
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import LatencySpec, quick_spec
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
    search = run.spec.search.model_copy(update={"episodes": run.episode + 1})
    assert extended(run, 1, []) == run.spec.model_copy(update={"search": search})


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


def test_a_run_that_is_worked_on_cannot_be_extended(db: Path, run: Run) -> None:
    with pytest.raises(BadInput, match="pause it"):
        extended(replace(run, state="running"), 1, [])
    with opened(db) as store:
        queued = store.create_run(quick_spec())
        with pytest.raises(BadInput, match="pause it"):
            store.extend(queued, quick_spec())


def test_a_larger_budget_has_what_was_over_budget_judged_again(db: Path, run: Run) -> None:
    before = rows(db, 1)
    assert any(row["state"] == "over_budget" for row in before)
    larger = extended(run, 1, ["latency.budget_speedup=1.5"])
    assert allows_more(run, larger)
    with opened(db) as store:
        store.set_outlook(1, Outlook(4, 0.1, (0.5,)))
        store.extend(1, larger, Worker.this_process())
        row = store.run(1)
        assert (row.state, row.spec, row.outlook) == ("running", larger, None)
    changed = [(old, new) for old, new in zip(before, rows(db, 1), strict=True) if old != new]
    assert {old["state"] for old, _ in changed} == {"over_budget"}
    assert {(new["state"], new["reward"]) for _, new in changed} == {("proposed", None)}


def test_a_smaller_budget_leaves_all_as_it_was_judged(db: Path, run: Run) -> None:
    before = rows(db, 1)
    smaller = extended(run, 1, ["latency.budget_speedup=4"])
    assert not allows_more(run, smaller)
    with opened(db) as store:
        store.extend(1, smaller)
        assert store.run(1).state == "queued"
    assert rows(db, 1) == before
    # a budget in ms is compared by the teacher's own latency
    in_ms = run.spec.model_copy(update={"latency": LatencySpec(budget_ms=1_000.0)})
    assert allows_more(run, in_ms)
