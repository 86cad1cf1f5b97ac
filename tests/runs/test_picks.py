from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kdnas_core.architecture import static_student
from kdnas_core.resampling import packed
from kdnas_core.runs.measured import Measured
from kdnas_core.runs.picks import best_but, pick_within, picks
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import opened
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import LatencySpec, RunSpec
from tests.dashboard.test_frontier_figure import candidate as made
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


def read_alike(rows: list[Candidate], own: float) -> list[Candidate]:
    """The same with losses on samples of the same texts: most of their noise is common, `own` is not."""
    rng = np.random.default_rng(0)
    common = 0.03 * rng.standard_normal(400)
    drawn = [common + own * rng.standard_normal(400) / math.sqrt(2) for _ in rows]
    return [
        replace(row, resampled=packed((row.point[1] + noise).tolist()))
        for row, noise in zip(rows, drawn, strict=True)
    ]


def test_losses_on_the_same_texts_are_told_apart_by_the_noise_of_their_difference(
    filled: tuple[Run, Candidate],
) -> None:
    run, done = filled
    rows = candidates(done, (4.0, 0.5), (8.0, 0.48))
    apart, alike = (
        pick_within(run, some, LatencySpec(budget_ms=9.0)) for some in (rows, read_alike(rows, 0.005))
    )
    assert (apart.best, apart.tied) == (rows[1], (rows[0],))
    assert alike.best is not None and (alike.best.id, alike.tied) == (2, ())
    assert alike.margin_se == pytest.approx(0.005, rel=0.1)


def test_of_tied_students_the_fastest_is_picked(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    rows = read_alike(candidates(done, (4.0, 0.5), (6.0, 0.484), (8.0, 0.48), (3.0, 0.52)), 0.005)
    found = pick_within(run, rows, LatencySpec(budget_ms=9.0))
    assert found.best is not None and found.next is not None
    assert (found.best.id, [each.id for each in found.tied], found.next.id) == (2, [3], 3)
    assert found.margin == pytest.approx(-0.004)


def test_a_tied_student_is_not_picked_if_one_that_is_not_tied_is_better_and_faster(
    filled: tuple[Run, Candidate],
) -> None:
    run, done = filled
    tied, other, best = read_alike(candidates(done, (6.0, 0.484), (5.0, 0.483), (8.0, 0.48)), 0.005)
    # this one is always as much worse than the best
    other = replace(other, resampled=best.resampled)
    found = pick_within(run, [tied, other, best], LatencySpec(budget_ms=9.0))
    assert (found.best, found.tied) == (best, (tied,))


def test_scores_of_tasks_are_not_tied_by_the_noise_of_losses(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    rows = read_alike(candidates(done, (4.0, 0.5), (8.0, 0.498)), 0.005)
    scored = [replace(row, scores={"sst2 (proxy)": 0.7 + 0.001 * row.id}) for row in rows]
    found = pick_within(run, scored, LatencySpec(budget_ms=9.0))
    assert (found.best, found.tied, found.margin_se) == (scored[1], (), None)


def test_what_was_not_judged_to_the_end_is_never_picked(filled: tuple[Run, Candidate]) -> None:
    run, done = filled
    one, other = candidates(done, (4.0, 0.5), (3.0, 0.1))
    stopped = [one, replace(other, state="pruned")]
    assert pick_within(run, stopped, LatencySpec(budget_ms=5.0)).best == one


def test_of_others_with_equal_errors_the_fastest_is_the_best() -> None:
    rows = [made(1, 4.0, 0.5), made(2, 7.0, 0.6), made(3, 5.0, 0.6)]
    others = best_but(Measured.of(rows), rows[0])
    assert others is rows[2]
    assert best_but(Measured.of(rows[:1]), rows[0]) is None
