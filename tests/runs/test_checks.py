"""Requests of pages, which a worker checks and queues, and exports as work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.runs import checks, worker
from kdnas_core.runs.jobs import LANES, Job, Worker
from kdnas_core.runs.records import Asked, Check, Export
from kdnas_core.runs.store import LeaseLost, Store, opened
from kdnas_core.spec import DistilSpec, ExportSpec, RunSpec, ScoreSpec, SweepSpec, quick_spec
from tests.filled_store import fill
from tests.sentences import is_one_sentence
from tests.tiny_runs import no_export, own_machine, tiny_run

EXPORT = ExportSpec(folder="somewhere", formats=["hf", "onnx"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    fill(tmp_path / "runs.db", students=True)
    with opened(tmp_path / "runs.db") as found:
        yield found


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The stores for which a worker was started after a check."""
    found: list[Path] = []
    monkeypatch.setattr(worker, "ensure_worker", found.append)
    return found


def claimed(store: Store) -> Check:
    found = store.claim(Worker.this_process(), LANES["checks"])
    assert isinstance(found, Check)
    return found


@pytest.mark.parametrize(
    ("wanted", "sources", "spec", "made"),
    [
        ("runs", [], quick_spec(), [Job("runs", 2)]),
        ("students", ["2", "1"], DistilSpec(epochs=1), [Job("students", 6), Job("students", 7)]),
        ("scorings", ["s1"], ScoreSpec(tasks=["packaged"]), [Job("scorings", 4)]),
        ("sweeps", ["2"], SweepSpec(), [Job("sweeps", 1)]),
    ],
)
def test_what_passes_is_queued_as_it_was_asked_for_and_served(
    store: Store,
    served: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    sources: list[str],
    spec: Asked,
    made: list[Job],
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(worker, "check_asked", lambda store, asked, say: seen.append(asked.spec))
    check = store.create_check(wanted, spec, sources)  # type: ignore[arg-type]
    assert worker.check(store, claimed(store)) == "finished"
    assert seen == [spec]
    assert store.check(check).made == tuple(job.id for job in made)
    for job in made:
        work = store.work(job)
        assert (work.state, work.spec) == ("queued", spec)
    assert served == [store.path]


@pytest.mark.usefixtures("own_signals")
def test_a_worker_serves_its_lane_alone_until_that_is_idle(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(worker.LINGER_S, "checks", 0.0)
    run, export = store.create_run(quick_spec()), store.create_export(EXPORT, candidate=1)
    check = store.create_check("scorings", ScoreSpec(tasks=["packaged"]), ["s3"])  # which is refused
    worker.serve(store.path, no_export, lane="checks", until_idle=True)
    states = [store.check(check).state, store.run(run).state, store.export(export).state]
    assert states == ["failed", "queued", "queued"]


def test_what_is_refused_is_said_and_queues_nothing(store: Store, served: list[Path]) -> None:
    store.create_check("scorings", ScoreSpec(tasks=["packaged"]), ["s3"])  # which is at work
    assert worker.check(store, claimed(store)) == "failed"
    row = store.check(1)
    assert (row.made, row.error) == ((), "Student s3 is running and has no weights yet; let it finish first.")
    assert served == []


def test_a_check_that_was_ended_after_it_queued_something_queues_it_once(
    store: Store, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "check_asked", lambda store, asked, say: None)
    store.create_check("runs", quick_spec())
    first = claimed(store)
    store.accept(first.id, lambda: checks.queue_asked(store, first))
    store.end(first.job, "interrupted")
    store.resume(first.job)
    assert worker.check(store, claimed(store)) == "finished"
    assert [run.id for run in store.runs()] == [2, 1]


def test_who_lost_the_lease_of_a_check_queues_nothing(store: Store) -> None:
    store.create_check("runs", quick_spec())
    lost = claimed(store)
    store.end(lost.job, "interrupted")
    with pytest.raises(LeaseLost):
        store.leased(lost.lease).accept(lost.id, lambda: [store.create_run(quick_spec())])
    assert len(store.runs()) == 1


def test_a_worker_of_one_lane_leaves_the_other_alone(store: Store) -> None:
    run = store.create_run(quick_spec())
    check = store.create_check("runs", quick_spec())
    assert (store.is_waiting("long"), store.is_waiting("checks")) == (True, True)
    assert store.claim(Worker.this_process()).job == Job("runs", run)  # type: ignore[union-attr]
    assert store.claim(Worker.this_process()) is None
    assert store.claim(Worker.this_process(), LANES["exports"]) is None
    assert claimed(store).id == check
    assert (store.is_waiting("long"), store.is_waiting("checks")) == (False, False)


def test_a_check_that_is_over_is_forgotten_after_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old, waiting = (store.create_check("runs", quick_spec()) for _ in range(2))
    store.ask(Job("checks", old), "stop")
    monkeypatch.setattr("kdnas_core.runs.store.requests.KEPT_S", -1)
    newest = store.create_check("runs", quick_spec())
    assert [store.check(check).state for check in (waiting, newest)] == ["queued"] * 2
    with pytest.raises(BadInput, match="no check 1"):
        store.check(old)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("replaced", [False, True])
def test_an_idle_worker_ends_when_its_store_was_removed_and_makes_none_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    db = tmp_path / "runs.db"

    def removed(pause: float) -> None:
        db.unlink()
        if replaced:
            (tmp_path / "other").write_bytes(b"")
            (tmp_path / "other").rename(db)

    monkeypatch.setattr("kdnas_core.runs.worker.time.sleep", removed)
    worker.serve(db, no_export, lane="checks", until_idle=True)
    assert db.exists() == replaced


# --- exports ----------------------------------------------------------------------------------------------


def test_an_export_says_what_it_does_and_ends_as_its_exporter_does(store: Store) -> None:
    said: list[str] = []

    def exporter(leased: Store, export: Export, say: Callable[[str], None]) -> None:
        assert (export.subject, export.spec) == ("s1", EXPORT)
        for activity in ("copying", "copying", "writing the card"):
            say(activity)
            said.append(leased.export(export.id).activity)

    export = store.create_export(EXPORT, student=1)
    row = store.claim(Worker.this_process(), LANES["exports"])
    assert isinstance(row, Export)
    assert worker.export(store, row, exporter) == "finished"
    assert said == ["copying", "copying", "writing the card"]
    assert store.export(export).state == "finished"
    assert [each.id for each in store.exports(student=1)] == [export]
    assert store.exports(candidate=1) == []


def test_an_export_that_is_told_to_stop_stops_where_it_next_says_what_it_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.01)
    store.create_export(EXPORT, candidate=1)
    row = store.claim(Worker.this_process(), LANES["exports"])
    assert isinstance(row, Export)

    def exporter(leased: Store, export: Export, say: Callable[[str], None]) -> None:
        store.ask(export.job, "stop")
        while True:
            say("copying")

    assert worker.export(store, row, exporter) == "stopped"


def test_an_export_that_is_not_over_stays_the_only_one_of_its_source(store: Store) -> None:
    first = store.create_export(EXPORT, candidate=1)
    assert store.create_export(EXPORT, candidate=1) == first
    assert store.create_export(EXPORT, student=1) != first
    store.ask(Job("exports", first), "stop")
    assert store.create_export(EXPORT, candidate=1) != first
    assert len(store.exports(candidate=1)) == 1


def test_what_is_being_exported_cannot_be_deleted_and_takes_its_exports_along(store: Store) -> None:
    store.create_export(EXPORT, student=4)
    row = store.claim(Worker.this_process(), LANES["exports"])
    assert row is not None
    for job in (Job("students", 4), Job("runs", 1)):
        with pytest.raises(BadInput, match=r"needed by (export|student)") as refused:
            store.delete(job)
        assert is_one_sentence(str(refused.value))
    store.end(row.job, "stopped")
    store.delete(Job("students", 4))
    assert store.exports() == []


# --- the real thing ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec(
    tiny_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunSpec]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield tiny_run(tiny_teacher, corpus_file)


@pytest.mark.slow
@pytest.mark.usefixtures("own_signals")
def test_a_worker_of_its_lane_checks_what_is_queued_for_real(
    spec: RunSpec, tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(worker.LINGER_S, "checks", 0.0)
    tight = spec.model_copy(update={"latency": spec.latency.model_copy(update={"budget_ms": 1e-6})})
    db = tmp_path / "runs.db"
    with opened(db) as store:
        good, bad = store.create_check("runs", spec), store.create_check("runs", tight)
        worker.serve(db, no_export, lane="checks", until_idle=True)
        assert (store.check(good).made, store.check(bad).made) == ((1,), ())
        assert "raise the budget" in (store.check(bad).error or "")
        source = store.create_check("students", DistilSpec(corpus="nowhere.txt"), ["9"])
        worker.serve(db, no_export, lane="checks", until_idle=True)
        assert "no candidate 9" in (store.check(source).error or "")
    assert served == [db]
