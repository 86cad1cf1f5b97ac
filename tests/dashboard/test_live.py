from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests, starting
from kdnas_core.dashboard.model import forecast, progress, time_estimate
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.run import budget_control
from kdnas_core.dashboard.ui import tables
from kdnas_core.errors import BadInput
from kdnas_core.hardware import device_name
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.loop import REMEMBERED
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec, RunSpec, quick_spec
from tests.filled_store import TEACHER, TEACHER_MS, fill, reading
from tests.served import Served, served

__all__ = ["served"]  # the fixture


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def test_the_store_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, db: Path) -> None:
    monkeypatch.setenv("KDNAS_DB", str(db))
    assert live.database() == db
    monkeypatch.delenv("KDNAS_DB")
    assert live.database() == Path("runs.db")


def test_a_store_that_does_not_exist_yet_has_no_runs_and_is_not_made(db: Path) -> None:
    assert live.read_runs(db) == []
    assert live.newest_run(db) is None
    assert not db.exists()


def test_a_page_reads_through_a_connection_that_cannot_write(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fill(db, episodes=1)

    @contextmanager
    def tried(path: Path, *, read_only: bool = False) -> Iterator[Store]:
        with opened(path, read_only=read_only) as store:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                store.set_activity(run, "written by a page")
            yield store

    monkeypatch.setattr(live, "opened", tried)
    live.read_runs(db)
    live.newest_run(db)
    live.read_candidate(db, live.read_run(db, run).candidates[0].id)


def test_the_newest_run_comes_first_and_older_ones_can_be_left_out(db: Path) -> None:
    first, second = fill(db, episodes=1), fill(db, episodes=1)
    assert [snapshot.run.id for snapshot in live.read_runs(db)] == [second, first]
    assert [snapshot.run.id for snapshot in live.read_runs(db, limit=1)] == [second]
    assert live.newest_run(db) == second


def test_a_candidate_comes_with_its_run_and_its_losses(db: Path) -> None:
    run = fill(db)
    done = progress.distilled(live.read_run(db, run).candidates)[0]
    seen = live.read_candidate(db, done.id)
    assert seen.run.id == run
    assert {loss.layer for loss in seen.losses} == set(range(1, done.architecture.layers + 1))
    assert (seen.folder / "config.json").is_file()


def test_an_address_names_a_run_by_a_whole_number() -> None:
    assert live.id_in_address("12", "run") == 12
    assert live.id_in_address(None, "run") is None
    assert live.id_in_address("", "run") is None


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "١", "1 OR 1=1", "9" * 30])
def test_an_address_that_names_no_run_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadInput, match="whole number"):
        live.id_in_address(text, "run")


def test_an_active_run_or_student_is_looked_at_more_often_and_none_without_live_updates(db: Path) -> None:
    fill(db, episodes=1, state="running")
    fill(db, students=True)
    with opened(db, read_only=True) as store:
        finished, running = store.runs()
        students = store.students()
    assert live.refresh_s([running]) == live.refresh_s([finished, *students]) == live.BUSY_REFRESH_S
    assert live.refresh_s([finished]) == live.refresh_s([]) == live.IDLE_REFRESH_S > live.BUSY_REFRESH_S
    assert live.refresh_s([running], live=False) is None


def test_a_selected_row_is_the_candidate_that_stood_there() -> None:
    assert live.selected([1], [11, 12, 13]) == 12
    assert live.selected([], [11]) is None
    assert live.selected([5], [11]) is None


def test_the_best_within_a_budget_is_never_over_it(db: Path) -> None:
    rows = live.read_run(db, fill(db)).candidates
    latencies = sorted(row.point[0] for row in progress.distilled(rows))
    for limit in (0.1, *latencies, latencies[-1] + 1):
        best = progress.best_within(rows, progress.Limit(limit))
        within = [row for row in progress.distilled(rows) if row.point[0] <= limit]
        assert (best is None) == (not within)
        if best is not None:
            assert best.point[0] <= limit
            assert best.point[1] == min(row.point[1] for row in within)


def test_a_budget_as_a_speed_up_is_known_once_the_teacher_is_measured(db: Path) -> None:
    measured = live.read_run(db, fill(db, episodes=0)).run
    assert progress.budget_of(measured) == pytest.approx(progress.teacher_ms(measured) / 2)  # type: ignore[operator]
    assert progress.budget_of(dataclasses.replace(measured, teacher=None)) is None


def test_no_more_is_planned_than_the_space_holds(db: Path) -> None:
    spec = quick_spec()
    few = spec.model_copy(
        update={"space": spec.space.model_copy(update={"layers": [2], "hidden_size": [96]})}
    )
    run = live.read_run(db, fill(db, episodes=0, spec=few)).run
    assert run.total == 16
    assert progress.planned(run) == 9


def test_remembered_candidates_say_nothing_about_the_time_left(db: Path) -> None:
    seen = live.read_run(db, fill(db, episodes=2, state="paused"))
    worked = dataclasses.replace(seen.run, seconds=1_000.0)
    known = [dataclasses.replace(row, notes=(REMEMBERED,), seconds=0.0) for row in seen.candidates[:4]]
    rest = list(seen.candidates[4:])
    mean = sum(row.seconds for row in rest) / len(rest)
    left = progress.planned(worked) - len(seen.candidates)
    assert progress.seconds_left(worked, [*known, *rest]) == pytest.approx(left * mean)


def test_the_time_left_is_that_of_the_candidates_left(db: Path) -> None:
    seen = live.read_run(db, fill(db, episodes=2, state="paused"))
    worked = dataclasses.replace(seen.run, seconds=1_000.0)
    mean = sum(row.seconds for row in seen.candidates) / 8
    assert progress.seconds_left(worked, seen.candidates) == pytest.approx(8 * mean)


def test_several_workers_at_once_shorten_the_time_left(db: Path) -> None:
    seen = live.read_run(db, fill(db, episodes=2, state="paused"))
    assert progress.seconds_left(
        dataclasses.replace(seen.run, seconds=16.0), seen.candidates
    ) == pytest.approx(16)


def test_no_time_left_is_told_before_a_candidate_is_judged_or_after_the_end(db: Path) -> None:
    seen = live.read_run(db, fill(db, episodes=1))
    assert progress.seconds_left(seen.run, seen.candidates) is None
    assert progress.seconds_left(dataclasses.replace(seen.run, state="running"), []) is None


def test_the_slider_starts_at_the_budget_of_the_run_to_the_last_digit(db: Path) -> None:
    run = live.read_run(db, fill(db, episodes=0)).run
    scale = budget_control.slider_scale(run)
    assert scale is not None
    assert scale.budget(scale.start) == progress.budget_of(run)
    assert scale.budget(scale.low) == scale.low > 0
    assert scale.high >= TEACHER_MS
    steps = (scale.high - scale.start) / scale.step
    assert steps == pytest.approx(round(steps))


@pytest.mark.parametrize("milliseconds", [0.02, 0.5, 9.99, 250.0, 40_000.0])
def test_the_slider_has_room_on_both_sides_of_any_budget(db: Path, milliseconds: float) -> None:
    spec = quick_spec().model_copy(update={"latency": LatencySpec(budget_ms=milliseconds)})
    scale = budget_control.slider_scale(live.read_run(db, fill(db, episodes=0, spec=spec)).run)
    assert scale is not None
    assert 0 < scale.low <= scale.start <= scale.high


def test_the_tables_hold_a_row_for_each_run_and_candidate_and_its_units(db: Path) -> None:
    seen = live.read_run(db, fill(db))
    runs = tables.runs_table([seen])
    assert runs.loc[0, "Judged"] == "16 of 16"
    assert "ms" in str(runs.loc[0, "Pick within budget"])
    table = tables.candidates_table(seen.candidates)
    assert list(table["Candidate"]) == [row.id for row in seen.candidates]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (float("nan"), "–"), (float("inf"), "–"), (6.129, "6.13 ms")],
)
def test_milliseconds_read_with_their_unit_or_as_a_dash(value: float | None, words: str) -> None:
    assert wording.milliseconds(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, "4 s"), (89, "89 s"), (150, "2 min"), (5_400, "1 h 30 min"), (None, "–")]
)
def test_a_length_of_time_reads_as_one_would_say_it(seconds: float | None, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"), [(22_713_216, "22.7 M"), (950, "950"), (1.4e9, "1.4 G"), (None, "–")]
)
def test_a_large_count_reads_in_short(value: float | None, words: str) -> None:
    assert wording.count(value) == words


def test_a_name_is_shown_as_it_was_typed_and_not_as_markdown() -> None:
    assert wording.plain("![x](http://host/x.png)") == r"\!\[x\]\(http\://host/x.png\)"
    assert wording.plain("search 2, MiniLM") == "search 2, MiniLM"


def test_a_latency_reads_with_all_that_it_was_measured_under() -> None:
    words = wording.protocol(reading(5.0))
    for part in (
        "AMD EPYC",
        "ONNX Runtime (float32)",
        "1 thread ",
        "batch 1",
        "128 tokens",
        "100 timed runs",
    ):
        assert part in words


def foreseen(spec: RunSpec, teacher_ms: float | None = None) -> forecast.Forecast:
    """The outlook for the quick search's space, by FLOPs."""
    space = SearchSpace.from_spec(spec.space, TEACHER)
    return forecast.make_forecast(spec.latency, space, TEACHER, teacher_ms, None)


def test_a_search_is_estimated_by_a_rule_of_thumb_where_nothing_was_measured() -> None:
    spec = quick_spec()
    rough = time_estimate.estimate(spec, foreseen(spec), None)
    assert not rough.measured
    assert rough.candidates == 16
    assert 0 < rough.distilled <= 16
    assert rough.seconds > 16 * time_estimate.LATENCY_S


def test_a_search_that_stops_none_early_takes_longer() -> None:
    spec = quick_spec()
    whole = spec.model_copy(update={"search": spec.search.model_copy(update={"prune": False})})
    early, late = (time_estimate.estimate(one, foreseen(one), None) for one in (spec, whole))
    assert early.seconds < late.seconds
    assert early.distilled == late.distilled


def test_a_search_with_a_supernet_takes_longer_by_a_training_on_shapes_of_the_whole_space() -> None:
    spec = quick_spec()
    with_supernet = spec.model_copy(
        update={"objective": spec.objective.model_copy(update={"start": "supernet"})}
    )
    plain, longer = (time_estimate.estimate(one, foreseen(one), 1e9) for one in (spec, with_supernet))
    flops = [shape.flops(48) for shape in foreseen(spec).shapes]
    texts = 400 * 2 * 32
    assert longer.seconds - plain.seconds == pytest.approx(3 * sum(flops) / len(flops) * texts / 1e9)


def test_a_tighter_budget_leaves_fewer_to_distil_and_takes_less_time() -> None:
    spec = quick_spec()
    tight = spec.model_copy(update={"latency": LatencySpec(budget_ms=2.0)})
    loose, strict = (time_estimate.estimate(one, foreseen(one, TEACHER_MS), None) for one in (spec, tight))
    assert strict.distilled < loose.distilled
    assert strict.seconds < loose.seconds


def test_what_is_far_over_the_budget_by_the_latency_model_takes_no_time() -> None:
    spec = quick_spec()
    seen = foreseen(spec, TEACHER_MS)
    half = len(seen.loads) // 2
    loads = (1.2,) * half + (9.0,) * (len(seen.loads) - half)
    by_flops = dataclasses.replace(seen, loads=loads)
    by_model = dataclasses.replace(by_flops, skipped_above=1.5)
    assert time_estimate.estimate(spec, by_flops, None).seconds == pytest.approx(16 * time_estimate.LATENCY_S)
    assert time_estimate.estimate(spec, by_model, None).seconds == pytest.approx(8 * time_estimate.LATENCY_S)


def test_the_pace_is_that_of_the_candidates_that_this_device_distilled(db: Path) -> None:
    run = fill(db)
    assert time_estimate.pace_here(db) is None  # they were measured on another device
    with opened(db) as store:
        for row in progress.distilled(store.candidates(run)):
            assert row.latency is not None
            here = dataclasses.replace(row.latency, device=device_name())
            store.update_candidate(row.id, latency=here.to_dict())
    pace = time_estimate.pace_here(db)
    assert pace is not None
    spec = quick_spec()
    slow, quick = (time_estimate.estimate(spec, foreseen(spec, TEACHER_MS), one) for one in (pace / 10, pace))
    assert quick.measured
    assert slow.seconds > quick.seconds


def test_a_search_is_checked_then_queued_then_served(db: Path, served: Served) -> None:
    check = starting.start(db, {"name": "mine"})
    (run,) = requests.outcome(db, check, calls_nothing).made
    assert [check.wanted for check in served.checks] == ["runs"]
    assert served.stores == [db]
    with opened(db, read_only=True) as store:
        assert store.run(run).name == "mine"
        assert store.run(run).state == "queued"


@pytest.mark.parametrize(
    "fields",
    [
        {"latency": {"budget_ms": -1}},
        {"space": {"layers": []}},
        {"space": {"attention_heads": [49]}},
        {"teacher": "./no-such-folder"},
        {"corpus": "./no-such-file.txt"},
        {"nonsense": 1},
    ],
)
def test_a_search_that_cannot_work_is_refused_before_anything_is_written(
    db: Path, served: Served, fields: dict[str, object]
) -> None:
    with pytest.raises(BadInput):
        starting.start(db, fields)
    assert served.checks == []
    assert not db.exists()


def test_a_search_that_the_full_check_refuses_is_not_queued(db: Path, served: Served) -> None:
    served.refusal = "The smallest student takes 3 ms; raise the budget."
    with pytest.raises(BadInput, match="smallest student"):
        requests.outcome(db, starting.start(db, {}), calls_nothing)
    with opened(db, read_only=True) as store:
        assert store.runs() == []
    assert served.stores == []


def test_the_choices_of_a_knob_may_be_typed_and_must_be_whole_numbers() -> None:
    assert starting.whole_numbers("Layers", [6, " 2", "2"]) == [2, 6]
    with pytest.raises(BadInput, match="whole number"):
        starting.whole_numbers("Layers", [6, "two"])


def test_a_teacher_that_was_never_measured_here_has_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path))
    assert starting.teacher_ms("packaged", Architecture(6, 384, 1536, 12), LatencySpec()) is None


def calls_nothing(sentence: str) -> None:
    del sentence
