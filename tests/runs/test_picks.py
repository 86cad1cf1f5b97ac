from __future__ import annotations

import math
from dataclasses import replace

import pytest

from kdnas_core.architecture import static_student
from kdnas_core.runs.picks import pick_within, picks
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import opened
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import LatencySpec, RunSpec
from tests.filled_store import fill, reading


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Candidate]:
    """A run with a teacher, and one of its candidates that was judged."""
    db = tmp_path_factory.mktemp("picks") / "runs.db"
    fill(db)
    with opened(db, read_only=True) as store:
        done = next(row for row in store.candidates(1) if row.state == "done")
        return store.run(1), done


def candidates(done: Candidate, *points: tuple[float, float]) -> list[Candidate]:
    return [
        replace(done, id=number, latency=replace(reading(1.0), p50=ms), loss=loss, loss_se=0.03, scores={})
        for number, (ms, loss) in enumerate(points, 1)
    ]


def test_each_budget_has_its_pick_and_how_far_it_is_ahead(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    run = replace(run, spec=RunSpec(latency=LatencySpec(budget_ms=[9.0, 5.0, 1.0])))
    large, small, none = picks(run, candidates(done, (4.0, 0.5), (8.0, 0.3), (3.0, 0.56), (10.0, 0.1)))
    assert large.best is not None and large.next is not None
    assert small.best is not None and small.next is not None
    assert (large.best.id, large.next.id, small.best.id, small.next.id) == (2, 1, 1, 3)
    assert (large.margin, small.margin) == pytest.approx((0.2, 0.06))
    assert small.margin_se == pytest.approx(math.hypot(0.03, 0.03))
    assert [[each.id for each in some.tied] for some in (large, small)] == [[], [3]]  # 0.2 and 0.06 apart
    assert (none.best, none.next, none.margin, none.margin_se) == (None,) * 4


def test_a_pick_says_how_likely_an_unseen_student_is_better(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    run = replace(run, spec=RunSpec(latency=LatencySpec(budget_ms=[9.0, 5.0])))
    known = replace(run, outlook=Outlook(run.episode, 0.04, (0.25, None)))
    rows = candidates(done, (4.0, 0.5))
    assert [pick.chance_unseen for pick in picks(known, rows)] == [0.25, None]
    # another episode is on its way, and what it has found is not in it
    begun = replace(known, episode=run.episode + 1)
    assert [pick.chance_unseen for pick in picks(begun, rows)] == [None, None]
    static = replace(rows[0], architecture=static_student(384))
    assert [pick.chance_unseen for pick in picks(known, [static])] == [None, None]
    assert [pick.chance_unseen for pick in picks(replace(run, outlook=None), rows)] == [None, None]


def test_the_only_student_within_a_budget_is_ahead_of_none(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    found = pick_within(run, candidates(done, (4.0, 0.5), (6.0, 0.1)), LatencySpec(budget_ms=5.0))
    assert found.best is not None
    assert (found.best.id, found.next, found.margin) == (1, None, None)


def test_what_was_not_judged_to_the_end_is_never_picked(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    one, other = candidates(done, (4.0, 0.5), (3.0, 0.1))
    stopped = [one, replace(other, state="pruned")]
    assert pick_within(run, stopped, LatencySpec(budget_ms=5.0)).best == one
