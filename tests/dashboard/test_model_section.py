from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.run import model_section
from kdnas_core.latency.model import MeasuredLatency
from kdnas_core.runs.store import opened
from tests.filled_store import fill, latency_of

SHAPES = [Architecture(layers, width, 4 * width, 3) for layers in (1, 2, 3, 4, 6) for width in (96, 192, 384)]
KNOWN = tuple(MeasuredLatency(shape, 1, 128, latency_of(shape)) for shape in SHAPES)


def test_latencies_that_follow_from_the_work_are_estimated_as_they_were_measured() -> None:
    found = model_section.pairs(KNOWN)
    assert {pair.architecture for pair in found} == set(SHAPES)
    assert [pair.estimated for pair in found] == pytest.approx([pair.measured for pair in found], rel=0.02)


def test_no_reading_takes_part_in_its_own_estimate() -> None:
    odd = dataclasses.replace(KNOWN[7], ms=3 * KNOWN[7].ms)
    found = model_section.pairs((*KNOWN[:7], odd, *KNOWN[8:]))
    plain = model_section.pairs(KNOWN)
    [itself] = [pair for pair in found if pair.architecture == odd.architecture]
    [before] = [pair for pair in plain if pair.architecture == odd.architecture]
    assert itself.estimated == pytest.approx(before.estimated)
    assert itself.error == pytest.approx(2 / 3, abs=0.02)


def test_too_few_readings_give_no_pairs() -> None:
    assert model_section.pairs(()) == ()
    assert model_section.pairs(KNOWN[:8]) == ()


def test_only_clean_readings_on_the_device_of_the_teacher_count(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    run = fill(db)
    rows = live.read_run(db, run).candidates
    with opened(db) as store:
        for row, change in zip(rows, ({"clean": False}, {"device": "another"}), strict=False):
            assert row.latency is not None
            changed = dataclasses.replace(row.latency, **change)  # type: ignore[arg-type]
            store.update_candidate(row.id, latency=changed.to_dict())
        store.update_candidate(rows[2].id, latency=None, estimated_ms=14.0)
    assert len(model_section.known_of(live.read_run(db, run))) == len(rows) - 3
