from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdnas_core.dashboard.model import comparison
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui import places
from kdnas_core.errors import BadInput
from kdnas_core.spec import quick_spec
from tests.filled_store import fill
from tests.test_pages import charts, db, shown, words

__all__ = ["db"]  # the fixture


@pytest.mark.parametrize(
    "text", ["1", "", "1, 1", "1,2,3,4,5,6,7", "a, b", "1; -2", "1, 2 3", "1," + "9" * 30]
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BadInput, match="such as 4, 7, 12"):
        comparison.ids_of(text)


def test_candidates_are_named_in_any_order_and_once() -> None:
    assert comparison.ids_of(" 7, 4;12 ,7") == [7, 4, 12]


def done(db: Path, run: int) -> list[int]:
    return [row.id for row in live.read_run(db, run).candidates if row.state == "done"]


def test_candidates_of_one_run_are_compared_by_shape_loss_layers_and_latency(db: Path) -> None:
    ids = done(db, fill(db))[:3]
    app = shown(places.COMPARE, candidates=", ".join(map(str, ids)))
    assert list(app.dataframe[0].value.columns) == ["Fact", "≠", *map(str, ids)]
    assert "is the best of them" in words(app)
    assert len(charts(app)) == 3


def test_candidates_of_other_searches_are_compared_by_what_does_compare(db: Path) -> None:
    fill(db)
    fill(db, spec=quick_spec(seed=3))
    one, other = done(db, 1)[0], done(db, 2)[0]
    app = shown(places.COMPARE, candidates=f"{one}, {other}")
    assert "Their agreement does not compare: they differ in seed." in words(app)
    assert list(charts(app)) == ["The timed runs of each candidate"]


def view(db: Path) -> CandidateView:
    return live.read_candidate(db, done(db, fill(db))[0])


def test_latencies_of_another_protocol_do_not_compare(db: Path) -> None:
    one = view(db)
    assert one.candidate.latency is not None
    slower = dataclasses.replace(one.candidate.latency, threads=2, batch_size=8)
    other = dataclasses.replace(one, candidate=dataclasses.replace(one.candidate, latency=slower))
    assert comparison.latencies_differ_in([one, one]) is None
    told = comparison.latencies_differ_in([one, other])
    assert told == "Their latencies do not compare: they differ in number of threads, batch."
    unmeasured = dataclasses.replace(one, candidate=dataclasses.replace(one.candidate, latency=None))
    assert comparison.latencies_differ_in([one, unmeasured]) is None


def test_candidates_that_were_never_distilled_are_shown_all_the_same(db: Path) -> None:
    run = fill(db)
    over = [row.id for row in live.read_run(db, run).candidates if row.state == "over_budget"][:2]
    app = shown(places.COMPARE, candidates=", ".join(map(str, over)))
    assert "None of them was distilled to the end." in words(app)
    assert "There is no candidate 999" in shown(places.COMPARE, candidates="1, 999").error[0].value
