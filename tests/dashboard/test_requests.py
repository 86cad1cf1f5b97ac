"""A page while it waits for a check, also for one that does not end."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnas_core.dashboard.act import requests
from kdnas_core.data.retrieval import PACKAGED_RETRIEVAL
from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.jobs import Job, Lane, Worker
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import quick_spec


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """The lanes for which a worker was started; each counts as served from then on."""
    lanes: list[Lane] = []
    monkeypatch.setattr(requests, "ensure_worker", lambda db, lane="long": lanes.append(lane))
    monkeypatch.setattr(requests, "is_served", lambda db, lane: lane in lanes)
    monkeypatch.setattr(requests, "LOOK_EVERY_S", 0.0)
    return lanes


def submitted(db: Path) -> int:
    return requests.submit(db, "runs", quick_spec())


def claim(store: Store) -> None:
    assert store.claim(Worker.this_process(), ["checks"]) is not None


def test_it_says_what_the_worker_does_until_that_has_queued_it(db: Path, asked: list[Lane]) -> None:
    check, said = submitted(db), list[str]()

    def tell(activity: str) -> None:
        said.append(activity)
        with opened(db) as store:
            if len(said) == 2:
                claim(store)
                store.set_activity(Job("checks", check), "measuring the teacher's latency")
            elif len(said) == 3:
                store.accept(check, lambda: [store.create_run(quick_spec())])

    assert requests.outcome(db, check, tell).made == (1,)
    assert said == ["Checking …", "Checking …", "Measuring the teacher's latency …"]
    assert asked == ["checks", "long"]


def test_what_was_queued_is_told_and_served_though_its_worker_was_killed_at_once(
    db: Path, asked: list[Lane]
) -> None:
    check = submitted(db)
    with opened(db) as store:
        claim(store)
        store.accept(check, lambda: [store.create_run(quick_spec())])
        store.end(Job("checks", check), "interrupted")
    assert requests.outcome(db, check, lambda activity: None).made == (1,)
    assert asked == ["long"]


def test_a_check_whose_worker_was_killed_can_be_asked_again(db: Path, asked: list[Lane]) -> None:
    check = submitted(db)
    with opened(db) as store:
        claim(store)
        store.end(Job("checks", check), "interrupted")
    with pytest.raises(Failure, match="was interrupted; ask again"):
        requests.outcome(db, check, lambda activity: None)
    assert asked == []


@pytest.mark.usefixtures("asked")
def test_a_check_that_was_cancelled_queues_nothing_though_it_passes(db: Path) -> None:
    check = submitted(db)
    with opened(db) as store:
        claim(store)
        requests.cancel(db, check)
        with pytest.raises(Failure, match="cancelled"):
            requests.outcome(db, check, lambda activity: None)
        assert not store.accept(check, lambda: [store.create_run(quick_spec())])
        assert store.runs() == []
        store.end(Job("checks", check), "stopped")
    requests.cancel(db, check)  # it is over: nothing happens


def test_where_no_worker_can_be_started_nothing_stays_queued(
    db: Path, asked: list[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "is_served", lambda db, lane: False)
    check = submitted(db)
    with pytest.raises(Failure, match="No worker could be started"):
        requests.outcome(db, check, lambda activity: None)
    assert asked == ["checks"]
    with opened(db, read_only=True) as store:
        assert store.check(check).state == "stopped"


@pytest.mark.usefixtures("asked")
def test_a_wait_that_ends_early_is_taken_up_again(db: Path) -> None:
    class Rerun(BaseException):
        pass

    def drawn_anew(activity: str) -> None:
        raise Rerun

    check = submitted(db)
    with pytest.raises(Rerun):
        requests.outcome(db, check, drawn_anew)
    with opened(db) as store:
        claim(store)
        store.accept(check, lambda: [store.create_run(quick_spec())])
    assert requests.outcome(db, check, drawn_anew).made == (1,)


def test_a_retrieval_task_is_scored_and_never_learnt(db: Path) -> None:
    assert requests.score(db, "s3", {"tasks": [PACKAGED_RETRIEVAL]})
    with pytest.raises(BadInput, match="Nothing can be learnt from packaged-retrieval"):
        requests.distil(db, ["12"], {"task": PACKAGED_RETRIEVAL})
