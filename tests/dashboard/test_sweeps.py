from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core import hardware
from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model_page import sweep_figures, sweeps_section
from kdnas_core.dashboard.read import live_students
from kdnas_core.dashboard.read.live_students import LatencyView
from kdnas_core.dashboard.ui import places
from kdnas_core.hardware import device_name
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep import MODELS_S, points, seconds_of
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import Candidate, Sweep
from kdnas_core.runs.store import opened
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, SweepSpec
from tests.filled_store import DEVICE, add_episode, begin_run, fill, reading
from tests.runs.test_sweep_journal import taken_at
from tests.served import Served, served
from tests.test_pages import buttons, charts, db, shown, words
from tests.test_student_page import GENERAL, TASK, press

__all__ = ["db", "served"]  # the fixtures

SMALL = SweepSpec(runtimes=["onnxruntime", "torch"], batch_sizes=[1, 4], sequence_lengths=[16, 512])
PROTOCOL = LatencySpec()


def add_sweep(db: Path, state: str, *, taken: int | None = None, how: SweepSpec = SMALL) -> int:
    """Adds a sweep of candidate 1 in a state, with some readings; by default all."""
    with opened(db) as store:
        asked = points(how, store.run(1).spec.latency)
        taken = len(asked) if taken is None else taken
        sweep = store.create_sweep(how, 1, None if state == "queued" else Worker.this_process())
        for point in asked[:taken]:
            store.add_reading(sweep, taken_at(point))
        store.update_sweep(sweep, step=taken, steps=len(asked), seconds=60)
        job = Job("sweeps", sweep)
        if state == "running":
            store.set_activity(job, "torch: batch 4, 128 tokens")
        elif state != "queued":
            store.end(job, state, "The teacher is gone." if state == "failed" else None)  # type: ignore[arg-type]
    return sweep


def view_of(db: Path) -> LatencyView:
    return live_students.read_latencies(db, 1)


def table(app: AppTest) -> Any:
    [found] = [frame.value for frame in app.dataframe if "Clean" in frame.value]
    return found


def lines(figure: Any) -> dict[str, Any]:
    """The lines of a figure that are in its legend, by name."""
    return {line.name: line for line in figure.data if line.showlegend is not False}


def latencies(app: AppTest) -> dict[str, Any]:
    return {alt: chart for alt, chart in charts(app).items() if alt.startswith("Latency by")}


# --- on the pages -----------------------------------------------------------------------------------------


def test_a_candidate_shows_the_latency_of_its_run_before_anything_else_is_measured(db: Path) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=1, tab="Latency")
    assert list(table(app)["Runtime"]) == ["ONNX Runtime"]
    assert list(table(app)["Device"]) == [DEVICE]
    assert "Measure in all runtimes" in buttons(app)
    assert "33 measurements, about" in words(app)
    assert latencies(app) == {}, "a line of one point"


def test_a_candidate_without_any_reading_says_so(db: Path) -> None:
    with opened(db) as store:
        add_episode(store, begin_run(store), 1, [Architecture(2, 192, 384, 12)])
    app = shown(places.CANDIDATE, candidate=1, tab="Latency")
    assert "Nothing is measured yet." in words(app)
    assert latencies(app) == {}
    assert "33 measurements, about" in words(app)


def test_a_finished_sweep_fills_the_table_and_both_figures(db: Path) -> None:
    fill(db)
    add_sweep(db, "finished", how=SweepSpec())
    app = shown(places.CANDIDATE, candidate=1, tab="Latency")
    assert list(table(app)["Runtime"]) == ["ONNX Runtime", "ONNX Runtime, 8-bit weights", "torch"]
    for title, sizes in (("Latency by batch size", 6), ("Latency by sequence length", 6)):
        [figure] = [chart for alt, chart in latencies(app).items() if alt.startswith(title)]
        named = [line for line in figure["data"] if line.get("showlegend") is not False]
        assert [line["name"] for line in named] == [*map(wording.runtime, USUAL_RUNTIMES), "teacher"]
        assert len(named[0]["x"]) == sizes
    assert "Finished sweeps" in [expander.label for expander in app.expander]


@pytest.mark.parametrize(
    ("state", "offered", "said"),
    [
        ("queued", {"Pause", "Stop", "Start a worker"}, "Waiting for a worker"),
        ("running", {"Pause", "Stop"}, ""),
        ("paused", {"Resume", "Stop"}, ""),
        ("stopped", {"Resume"}, ""),
        ("interrupted", {"Resume"}, "All readings so far are kept"),
        ("failed", {"Resume"}, "The teacher is gone."),
    ],
)
def test_a_sweep_offers_the_buttons_of_its_state_and_shows_what_is_there(
    db: Path, state: str, offered: set[str], said: str
) -> None:
    fill(db)
    add_sweep(db, state, taken=3)
    app = shown(places.CANDIDATE, candidate=1, tab="Latency")
    assert buttons(app) & {"Pause", "Stop", "Resume", "Start a worker"} == offered
    assert said in words(app)
    assert list(table(app)["Runtime"]) == ["ONNX Runtime", "torch"]
    assert [alt.partition(",")[0] for alt in latencies(app)] == ["Latency by sequence length"]
    assert sweeps_section.DISTURBED not in words(app)


def test_disturbed_readings_are_explained_on_the_page(db: Path) -> None:
    fill(db)
    sweep = add_sweep(db, "finished")
    with opened(db) as store:
        store.add_reading(sweep, at(9.0, batch_size=4, clean=False))
    assert sweeps_section.DISTURBED in words(shown(places.CANDIDATE, candidate=1, tab="Latency"))


def test_a_running_sweep_says_how_far_it_is_and_how_long_it_takes(db: Path) -> None:
    fill(db)
    add_sweep(db, "running", taken=3)
    [bar] = shown(places.CANDIDATE, candidate=1, tab="Latency").get("progress")
    assert bar.proto.text.replace("\\", "").startswith("torch: batch 4, 128 tokens · 3 of 8 measured · about")
    assert 0 < bar.proto.value < 100 * 3 / 8, "the later points are dearer"


@pytest.mark.parametrize("student", [GENERAL, TASK])
def test_a_student_shows_what_was_measured_of_its_candidate(db: Path, student: int) -> None:
    fill(db, students=True)
    add_sweep(db, "finished")
    app = shown(places.STUDENT, student=student, tab="Latency")
    assert "It has the shape of candidate 1" in words(app)
    assert len(table(app)) == 2


def sweeps(db: Path) -> list[Sweep]:
    with opened(db, read_only=True) as store:
        return store.sweeps()


def test_a_press_queues_a_sweep_as_it_was_chosen(db: Path, served: Served) -> None:
    fill(db, students=True)
    app = press(shown(places.CANDIDATE, candidate=2, tab="Latency"), "Measure in all runtimes")
    assert (sweeps(db)[0].candidate, sweeps(db)[0].spec) == (2, SweepSpec())
    assert app.toast[0].value == "Sweep 1 is queued."
    app = shown(places.STUDENT, student=GENERAL, tab="Latency")
    app.multiselect[0].set_value(["torch"])
    [by_size] = [box for box in app.checkbox if box.label == sweeps_section.BY_SIZE]
    by_size.uncheck()
    app = press(app.run(), "Measure")
    chosen = SweepSpec(runtimes=["torch"], batch_sizes=[], sequence_lengths=[])
    assert (sweeps(db)[0].candidate, sweeps(db)[0].spec) == (1, chosen)
    assert served.stores == [db, db]


def test_without_a_runtime_nothing_can_be_asked_for(db: Path) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=1, tab="Latency")
    app.multiselect[0].set_value([])
    [button] = [button for button in app.run().button if button.label == "Measure"]
    assert button.disabled


def test_what_is_refused_is_said_beside_the_button(db: Path, served: Served) -> None:
    served.refusal = "There is no CUDA device here; choose another runtime."
    fill(db)
    app = press(shown(places.CANDIDATE, candidate=1, tab="Latency"), "Measure in all runtimes")
    assert "Not queued. There is no CUDA device here; choose another runtime." in words(app)
    assert sweeps(db) == []
    assert served.stores == []


def test_a_sweep_is_paused_and_deleted_from_the_page(db: Path, served: Served) -> None:
    fill(db)
    add_sweep(db, "running", taken=3)
    press(shown(places.CANDIDATE, candidate=1, tab="Latency"), "Pause")
    assert sweeps(db)[0].request == "pause"
    with opened(db) as store:
        store.end(Job("sweeps", 1), "paused")
    app = press(shown(places.CANDIDATE, candidate=1, tab="Latency"), "Delete sweep 1 …")
    assert "deleted for good" in words(app)
    app = press(app, "Delete for good")
    assert sweeps(db) == []
    assert list(table(app)["Runtime"]) == ["ONNX Runtime"], "the run's own reading is gone"


def test_cuda_is_offered_where_the_machine_has_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CUDA", tmp_path / "none")
    assert "torch-cuda" not in hardware.runtimes()
    monkeypatch.setattr(hardware, "CUDA", tmp_path)
    assert "torch-cuda" in hardware.runtimes()


# --- tables and words -------------------------------------------------------------------------------------


def at(milliseconds: float, **fields: Any) -> LatencyReading:
    return dataclasses.replace(reading(milliseconds), **fields)


@pytest.fixture
def view(db: Path) -> LatencyView:
    """Candidate 1 of a filled store, without a sweep."""
    fill(db)
    return view_of(db)


def test_the_reading_of_the_run_is_shown_once(view: LatencyView) -> None:
    own = view.candidate.latency
    assert own is not None
    again = dataclasses.replace(view, readings=[at(3.0), at(2.0, batch_size=4)])
    assert sweep_figures.all_readings(again) == again.readings
    elsewhere = dataclasses.replace(view, readings=[at(3.0, device="another")])
    assert sweep_figures.all_readings(elsewhere) == [own, *elsewhere.readings]
    assert list(sweep_figures.runtimes_table(elsewhere)["Device"]) == [DEVICE, "another"]


def test_a_disturbed_reading_is_marked_in_table_and_figure(view: LatencyView) -> None:
    seen = dataclasses.replace(view, readings=[at(3.0, clean=False), at(5.0, runtime="torch")])
    assert list(sweep_figures.runtimes_table(seen)["Clean"]) == ["no", "yes"]
    figure = sweep_figures.batch_figure(seen.readings, PROTOCOL)
    symbols = {name: line.marker.symbol for name, line in lines(figure).items() if line.mode != "lines"}
    assert symbols == {"ONNX Runtime": ("circle-open",), "torch": ("circle",)}


def test_the_time_that_a_sweep_takes_leaves_out_what_this_device_remembers(view: LatencyView) -> None:
    how = SweepSpec(runtimes=["torch"], batch_sizes=[2], sequence_lengths=[])
    own = view.candidate.latency
    assert own is not None
    asked = points(how, view.run.spec.latency)
    seconds = seconds_of(asked, own.p50 + own.teacher_p50, view.run.spec.latency)
    assert seconds > MODELS_S
    assert sweep_figures.expected_duration(view, how).startswith(
        f"2 measurements, about **{wording.duration(seconds)}**"
    )
    elsewhere = dataclasses.replace(view, readings=[taken_at(point) for point in asked])
    assert sweep_figures.to_measure(elsewhere, how) == asked
    here = [dataclasses.replace(row, device=device_name()) for row in elsewhere.readings]
    assert sweep_figures.to_measure(dataclasses.replace(view, readings=here[:1]), how) == asked[1:]
    disturbed = [dataclasses.replace(row, clean=False) for row in here]
    assert sweep_figures.to_measure(dataclasses.replace(view, readings=disturbed), how) == asked
    done = dataclasses.replace(view, readings=here)
    assert sweep_figures.expected_duration(done, how) == "All of it is measured on this device already."


def test_a_student_that_was_never_measured_is_foretold_by_its_flops(view: LatencyView) -> None:
    unmeasured: Candidate = dataclasses.replace(view.candidate, latency=None)
    assert "about **" in sweep_figures.expected_duration(
        dataclasses.replace(view, candidate=unmeasured), SMALL
    )
    imported = dataclasses.replace(view.run, teacher=None)
    told = sweep_figures.expected_duration(
        dataclasses.replace(view, candidate=unmeasured, run=imported), SMALL
    )
    assert told == "8 measurements, one after another."


def test_lengths_that_a_finished_sweep_left_out_are_named(db: Path) -> None:
    fill(db)
    with opened(db) as store:
        count = len(points(SMALL, PROTOCOL, 256))
        sweep = store.create_sweep(SMALL, 1, Worker.this_process())
        store.update_sweep(sweep, step=count, steps=count)
        store.end(Job("sweeps", sweep), "finished")
    assert (
        sweep_figures.left_out(view_of(db)) == "The teacher reads fewer than 512 tokens, so 512 are left out."
    )


def test_nothing_is_left_out_of_a_whole_sweep(db: Path) -> None:
    fill(db)
    add_sweep(db, "finished")
    assert sweep_figures.left_out(view_of(db)) is None
    add_sweep(db, "paused", taken=2)
    assert sweep_figures.left_out(view_of(db)) is None


def test_what_a_sweep_measures_reads_in_short() -> None:
    assert sweeps_section.how(SMALL) == "ONNX Runtime · torch · by batch size and length"
    one = SweepSpec(runtimes=["torch"], batch_sizes=[], sequence_lengths=[])
    assert sweeps_section.how(one) == "torch"


# --- figures ----------------------------------------------------------------------------------------------

SWEPT = [taken_at(point) for point in points(SMALL, PROTOCOL)]


def test_each_figure_has_a_line_a_runtime_and_the_teachers_dashed_in_its_colour() -> None:
    for make, sizes in ((sweep_figures.batch_figure, (1, 4)), (sweep_figures.length_figure, (16, 128, 512))):
        figure = make(SWEPT, PROTOCOL)
        teachers = [line for line in figure.data if line.showlegend is False]
        students = [line for line in lines(figure).values() if line.name != "teacher"]
        assert [line.name for line in students] == ["ONNX Runtime", "torch"]
        assert [line.x for line in students] == [sizes, sizes]
        assert [line.line.color for line in teachers] == [line.line.color for line in students]
        assert all(line.line.dash == "dash" for line in teachers)
        assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
        assert figure.layout.xaxis.ticktext == tuple(map(str, sizes))


def test_a_runtime_keeps_its_colour_whatever_else_is_drawn() -> None:
    alone = sweep_figures.batch_figure([row for row in SWEPT if row.runtime == "torch"], PROTOCOL)
    both = sweep_figures.batch_figure(SWEPT, PROTOCOL)
    assert lines(alone)["torch"].line.color == lines(both)["torch"].line.color


def test_where_several_devices_meet_each_has_its_own_line_and_name() -> None:
    others = [dataclasses.replace(row, device="<b>other</b>") for row in SWEPT]
    named = lines(sweep_figures.batch_figure([*SWEPT, *others], PROTOCOL))
    assert len(named) == 5
    assert f"torch on {DEVICE}" in named
    assert "torch on &lt;b&gt;other&lt;/b&gt;" in named


@pytest.mark.parametrize("rows", [[], SWEPT[:1]])
def test_a_figure_is_drawn_whatever_there_is(rows: list[LatencyReading]) -> None:
    for make in (sweep_figures.batch_figure, sweep_figures.length_figure):
        assert make(rows, PROTOCOL).to_json()
