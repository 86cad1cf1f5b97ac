from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from kdnas_core.dashboard.model.progress import JUDGED
from kdnas_core.runs import launch, worker
from kdnas_core.runs.extending import extended
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Candidate, LayerLoss, Run
from kdnas_core.runs.store import Store, files_of, opened
from kdnas_core.search import stopping
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.controllers.optuna import SAMPLERS, OptunaController
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.controllers.surrogate import SurrogateController
from kdnas_core.search.prepare import Prepared, prepare
from kdnas_core.spec import RunSpec
from tests.sentences import is_one_sentence
from tests.tiny_runs import no_export, own_machine, remember_latencies, tiny_run, wait_for

STEPS = 24  # of a mini-KD of a few tenths of a second
LONG_STEPS = 150  # of one that another process can catch in the middle
OVER_MS = 0.5  # a budget that the larger third of the tiny students is over


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="module")
def spec(tiny_teacher: Path, corpus_file: Path, machine: None) -> RunSpec:
    """A run with candidates over budget, whose latencies are known."""
    spec = tiny_run(tiny_teacher, corpus_file, latency={"budget_ms": OVER_MS, "sequence_length": 16})
    spec = spec.model_copy(update={"proxy": spec.proxy.model_copy(update={"steps": STEPS})})
    remember_latencies(spec)
    return spec


@pytest.fixture
def long_spec(spec: RunSpec) -> RunSpec:
    return spec.model_copy(update={"proxy": spec.proxy.model_copy(update={"steps": LONG_STEPS})})


@pytest.fixture(scope="module")
def prepared(spec: RunSpec) -> Prepared:
    return prepare(spec, lambda activity: None)


@pytest.fixture
def bad_spec(spec: RunSpec, tmp_path: Path) -> RunSpec:
    return spec.model_copy(update={"corpus": str(tmp_path / "gone.txt")})


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Path]:
    """A store, all of whose workers are killed when the test is over."""
    path = tmp_path / "runs.db"
    yield path
    for process in workers_of(path):
        process.kill()


def workers_of(db: Path) -> list[psutil.Process]:
    """The processes that serve a store, or wait for it."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if "worker" in line and str(db) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def start_worker(db: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "kdnas_core", "worker", "--until-idle", "--db", str(db)]
    with (db.parent / "worker.log").open("ab") as log:
        return subprocess.Popen(line, stdout=log, stderr=log)


def resume(db: Path, run: int | str) -> None:
    line = [sys.executable, "-m", "kdnas_core", "resume", str(run), "--db", str(db)]
    subprocess.run(line, check=True, capture_output=True, timeout=60)


@contextmanager
def looking_at(db: Path) -> Iterator[Store]:
    with opened(db, read_only=True) as store:
        yield store


def queue(db: Path, *specs: RunSpec) -> list[int]:
    with opened(db) as store:
        return [store.create_run(spec) for spec in specs]


def claimed(store: Store, spec: RunSpec) -> Run:
    store.create_run(spec)
    run = store.claim_run(Worker.this_process())
    assert run is not None
    return run


def finished_in(candidates: list[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.state in JUDGED]


def in_hand(store: Store, run: int) -> bool:
    return any(candidate.state == "distilling" for candidate in store.candidates(run))


# --- one search, in this process --------------------------------------------------------------------------


@contextmanager
def asked_meanwhile(
    db: Path, when: Callable[[Store], bool], then: Callable[[Store], object]
) -> Iterator[None]:
    """Runs an action on the store in a thread as soon as the store fulfils a condition."""

    def wait_and_do() -> None:
        with opened(db) as store:
            wait_for(lambda: when(store))
            then(store)

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("request_", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_running_search_obeys_within_a_step_and_goes_on_where_it_was(
    db: Path,
    spec: RunSpec,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    request_: Literal["pause", "stop"],
    state: str,
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.02)
    with opened(db) as store:
        run = claimed(store, spec)
        with asked_meanwhile(
            db, lambda other: in_hand(other, run.id), lambda other: other.ask(run.id, request_)
        ):
            assert worker.work_on(store, run, prepared) == state
        row, before = store.run(run.id), store.candidates(run.id)
        assert (row.state, row.request, row.activity, row.error) == (state, None, "", None)
        assert not in_hand(store, run.id)
        assert "proposed" in [candidate.state for candidate in before]

        assert store.resume(run.id) == "queued"
        again = store.claim_run(Worker.this_process())
        assert again is not None
        assert worker.work_on(store, again, prepared) == "finished"
        after = store.candidates(run.id)
        assert after[: len(finished_in(before))] == finished_in(before)
        assert all(candidate in finished_in(after) for candidate in after)
        assert len({candidate.architecture for candidate in after}) == len(after) == run.total


@pytest.mark.slow
def test_a_finished_search_is_what_the_spec_asked_for(db: Path, prepared: Prepared) -> None:
    told: list[Candidate] = []
    # at random, so that some are over the budget
    chosen = prepared.spec.search.model_copy(update={"controller": "random"})
    spec = prepared.spec.model_copy(update={"search": chosen})
    with opened(db) as store:
        run = claimed(store, spec)
        assert worker.work_on(store, run, replace(prepared, spec=spec), told.append) == "finished"
        row, candidates = store.run(run.id), store.candidates(run.id)
        assert (row.state, row.episode, row.error) == ("finished", 2, None)
        assert row.finished_at is not None
        assert row.seconds > 0
        assert row.teacher is not None
        assert row.teacher.name == spec.teacher
        assert told == candidates
        assert {"done", "over_budget"} <= {row.state for row in candidates} <= {*JUDGED} - {"failed"}
        for candidate in candidates:
            assert candidate.latency is not None
            assert (candidate.latency.p50 > OVER_MS) == (candidate.state == "over_budget")
            assert bool(store.layer_losses(candidate.id)) == (candidate.state != "over_budget")
        with pytest.raises(ValueError, match="nothing left to resume"):
            store.resume(run.id)


def test_an_unforeseen_error_fails_the_run_and_keeps_what_was_judged(
    db: Path, spec: RunSpec, prepared: Prepared
) -> None:
    def told(candidate: Candidate) -> None:
        if candidate.state == "done":
            raise OSError("no space left on device")

    with opened(db) as store:
        run = claimed(store, spec)
        assert worker.work_on(store, run, prepared, told) == "failed"
        assert store.run(run.id).error == "OSError: no space left on device"
        assert [candidate.state for candidate in store.candidates(run.id)].count("done") == 1
        assert store.resume(run.id) == "queued"


def test_an_interrupt_is_written_before_it_goes_on_its_way(
    db: Path, spec: RunSpec, prepared: Prepared
) -> None:
    def told(candidate: Candidate) -> None:
        raise KeyboardInterrupt

    with opened(db) as store:
        run = claimed(store, spec)
        with pytest.raises(KeyboardInterrupt):
            worker.work_on(store, run, prepared, told)
        assert store.run(run.id).state == "interrupted"
        assert len(finished_in(store.candidates(run.id))) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("own_signals")
def test_a_run_that_cannot_be_searched_fails_with_one_sentence_and_the_worker_lives_on(
    db: Path, spec: RunSpec, bad_spec: RunSpec
) -> None:
    bad, no_space, good = queue(
        db,
        bad_spec,
        spec.model_copy(update={"space": spec.space.model_copy(update={"attention_heads": [5]})}),
        spec,
    )
    worker.serve(db, no_export, until_idle=True)
    with looking_at(db) as store:
        for run, says in ((bad, "does not exist"), (no_space, "attention heads")):
            row = store.run(run)
            assert row.state == "failed"
            assert row.error is not None
            assert says in row.error
            assert is_one_sentence(row.error)
            assert store.candidates(run) == []
        assert store.run(good).state == "finished"


def test_the_controller_is_the_one_that_the_spec_names(prepared: Prepared) -> None:
    kinds = {"lstm": LstmController, "random": RandomController, "surrogate": SurrogateController}
    kinds |= dict.fromkeys(SAMPLERS, OptunaController)
    for name, kind in kinds.items():
        chosen = prepared.spec.search.model_copy(update={"controller": name})
        given = prepared.spec.model_copy(update={"search": chosen})
        assert isinstance(worker.make_controller(replace(prepared, spec=given)), kind)


@pytest.mark.slow
def test_a_search_ends_where_no_gain_is_expected_if_its_spec_says_so(
    db: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "LITTLE", math.inf)
    for until, episodes in (("episodes", 3), ("no_gain", 2)):
        chosen = prepared.spec.search.model_copy(update={"until": until, "episodes": 3})
        spec = prepared.spec.model_copy(update={"search": chosen})
        with opened(db) as store:
            run = claimed(store, spec)
            assert worker.work_on(store, run, replace(prepared, spec=spec)) == "finished"
            row = store.run(run.id)
            assert row.episode == episodes
            assert row.outlook is not None and row.outlook.episode == episodes and row.outlook.no_gain
            if until == "no_gain":  # it goes on all the same where it is asked to
                more = extended(row, 1, [])
                store.extend(run.id, more, Worker.this_process())
                assert worker.work_on(store, store.run(run.id), replace(prepared, spec=more)) == "finished"
                assert (store.run(run.id).episode, more.search.until) == (3, "no_gain")


def test_a_warm_search_learns_from_the_one_before_it(
    db: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(worker, "search", lambda controller, *rest: given.append(len(controller.earlier)))
    for warm in (False, True):
        chosen = prepared.spec.search.model_copy(update={"warm_start": warm, "controller": "surrogate"})
        spec = prepared.spec.model_copy(update={"search": chosen})
        with opened(db) as store:
            before = store.create_run(spec, Worker.this_process())
            store.set_teacher(before, spec, worker._facts(prepared))
            store.begin_episode(before, 1, [(shape, None) for shape in list(prepared.space)[:3]])
            for candidate in store.candidates(before):
                store.update_candidate(candidate.id, state="done", loss=0.5, reward=0.4)
            store.end_run(before, "finished")
            run = claimed(store, spec)
            assert worker.work_on(store, run, replace(prepared, spec=spec)) == "finished"
            assert (store.earlier(run.id) is not None) == warm
    assert given == [0, 6]  # of both runs before it


def test_a_search_goes_on_where_nothing_can_be_said_of_another_episode(
    db: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    over: list[bool] = []

    def singular(*arguments: Any) -> None:
        raise ValueError("a matrix that is not positive definite")

    monkeypatch.setattr(SurrogateController, "outlook", singular)
    monkeypatch.setattr(worker, "search", lambda *arguments: over.append(arguments[-1](1, [])))
    with opened(db) as store:
        run = claimed(store, prepared.spec)
        assert worker.work_on(store, run, prepared) == "finished"
        assert (over, store.run(run.id).outlook) == ([False], None)


# --- workers that are processes ---------------------------------------------------------------------------

MOMENTS: list[Callable[[Run, list[Candidate]], bool]] = [
    lambda run, candidates: run.state == "running",  # before the first candidate
    lambda run, candidates: any(candidate.state == "distilling" for candidate in candidates),
    lambda run, candidates: any(candidate.step > LONG_STEPS // 3 for candidate in candidates),
    lambda run, candidates: any(candidate.state == "done" for candidate in candidates),
    lambda run, candidates: (
        run.episode == 2 and any(candidate.state == "distilling" for candidate in candidates)
    ),
]


def _close(value: float | None, other: float | None) -> bool:
    return value == other if value is None or other is None else value == pytest.approx(other, rel=1e-6)


def as_proposed(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.episode, candidate.architecture, candidate.state, candidate.steps, candidate.weights


@pytest.mark.parametrize("moments", [MOMENTS[2:3], pytest.param(MOMENTS, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_again_and_again_loses_no_candidate_and_changes_nothing(
    db: Path, tmp_path: Path, long_spec: RunSpec, moments: list[Callable[[Run, list[Candidate]], bool]]
) -> None:
    (run,) = queue(db, long_spec)
    kept: dict[int, Candidate] = {}
    losses: dict[int, list[LayerLoss]] = {}
    start_worker(db)
    with looking_at(db) as store:
        for moment in moments:
            wait_for(lambda at=moment: at(store.run(run), store.candidates(run)), pause=0.002)  # type: ignore[misc]
            serving = store.run(run).worker
            assert serving is not None
            os.kill(serving.pid, signal.SIGKILL)
            wait_for(lambda: store.run(run).state == "interrupted", seconds=5)
            now = {candidate.id: candidate for candidate in finished_in(store.candidates(run))}
            assert {row: now.get(row) for row in kept} == kept, "a finished candidate changed"
            kept = now
            losses = {row: store.layer_losses(row) for row in kept}
            resume(db, run)
        wait_for(lambda: store.run(run).state == "finished")
        candidates = store.candidates(run)
        assert {candidate.id: candidate for candidate in candidates if candidate.id in kept} == kept
        assert {row: store.layer_losses(row) for row in losses} == losses

        with opened(tmp_path / "uninterrupted.db") as other:
            quiet = claimed(other, long_spec)
            worker.work_on(other, quiet)
            expected = other.candidates(quiet.id)
            for candidate, twin in zip(candidates, expected, strict=True):
                assert as_proposed(candidate) == as_proposed(twin)
                assert _close(candidate.loss, twin.loss)
                assert _close(candidate.predicted_reward, twin.predicted_reward)
                ours, theirs = store.layer_losses(candidate.id), other.layer_losses(twin.id)
                assert [replace(loss, loss=0) for loss in ours] == [replace(loss, loss=0) for loss in theirs]
                assert [loss.loss for loss in ours] == pytest.approx([loss.loss for loss in theirs], rel=1e-6)
        assert len({candidate.architecture for candidate in candidates}) == len(candidates)
        for candidate in candidates:
            if candidate.state == "done":
                weights = store.files(run, candidate.id) / "model.safetensors"
                assert weights.is_file()


def stop_between_writes(process: subprocess.Popen[bytes], db: Path) -> None:
    """Stops a worker at a moment when it holds no lock of the store, which others would wait for."""

    def stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(db, timeout=0)) as raw:
                raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            return False
        return True

    wait_for(stopped)


@pytest.mark.slow
def test_a_worker_that_slept_through_its_lease_writes_nothing_when_it_wakes(
    db: Path, tmp_path: Path, long_spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is on another host: on the same host, its lock would keep the run."""
    (run,) = queue(db, long_spec)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TMPDIR", str(tmp_path))  # it shares no lock of the device either
        process = start_worker(db)
    with opened(db) as store:
        wait_for(lambda: in_hand(store, run))
        stop_between_writes(process, db)
        assert store.run(run).state == "running"
        with closing(sqlite3.connect(db)) as raw, raw:
            raw.execute("UPDATE jobs SET owner = json_set(owner, '$.host', 'another-host')")
            assert store.run(run).state == "running"
            raw.execute("UPDATE jobs SET heartbeat_at = heartbeat_at - 3600")
        assert store.run(run).state == "interrupted"
        store.resume(run)
        again = store.claim_run(Worker.this_process())
        assert again is not None
        assert worker.work_on(store, again) == "finished"
        after = store.run(run), store.candidates(run), [store.layer_losses(row + 1) for row in range(6)]
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=30) == 0
        assert (
            store.run(run),
            store.candidates(run),
            [store.layer_losses(row + 1) for row in range(6)],
        ) == after
    assert "no longer this process's" in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_a_terminated_worker_leaves_the_run_interrupted_and_exits_with_130(
    db: Path, long_spec: RunSpec
) -> None:
    (run,) = queue(db, long_spec)
    process = start_worker(db)
    with looking_at(db) as store:
        wait_for(lambda: in_hand(store, run))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        assert store.run(run).state == "interrupted"
        assert store.run(run).finished_at is not None, "it was written, not concluded from the dead process"
        assert not in_hand(store, run)


@pytest.mark.slow
def test_a_second_worker_waits_until_the_first_is_gone(db: Path, bad_spec: RunSpec) -> None:
    (run,) = queue(db, bad_spec)
    code = f"""
import pathlib
from kdnas_core.runs.worker import serve
print("ready", flush=True)
serve(pathlib.Path({str(db)!r}), print, until_idle=True)
"""
    with launch.worker_lock(db), looking_at(db) as store:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.5)
        assert process.poll() is None
        assert store.run(run).state == "queued"
    assert process.wait(timeout=30) == 0
    with looking_at(db) as store:
        assert store.run(run).state == "failed"


@pytest.mark.slow
def test_a_worker_outlives_the_process_and_the_terminal_that_asked_for_it(
    db: Path, long_spec: RunSpec
) -> None:
    (run,) = queue(db, long_spec)
    code = f"""
import pathlib, time
from kdnas_core.runs.launch import ensure_worker
ensure_worker(pathlib.Path({str(db)!r}))
print("asked", flush=True)
time.sleep(60)
"""
    asking = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert asking.stdout is not None
    assert asking.stdout.readline() == "asked\n"
    with looking_at(db) as store:
        assert store.run(run).state in ("queued", "running"), "too quick a worker to prove anything"
        os.killpg(asking.pid, signal.SIGHUP)
        os.killpg(asking.pid, signal.SIGKILL)
        asking.wait()
        wait_for(lambda: store.run(run).state == "finished")
    wait_for(lambda: not workers_of(db), seconds=20)
    assert f"run {run}: finished" in (files_of(db) / "worker.log").read_text()


@pytest.mark.slow
def test_asking_twice_for_a_worker_starts_one(db: Path, long_spec: RunSpec) -> None:
    queue(db, long_spec)
    launch.ensure_worker(db)
    launch.ensure_worker(db)
    assert len(workers_of(db)) == 1


@pytest.mark.slow
def test_a_store_that_is_served_gets_no_second_worker(db: Path, long_spec: RunSpec) -> None:
    (run,) = queue(db, long_spec)
    launch.ensure_worker(db)
    with looking_at(db) as store:
        wait_for(lambda: store.run(run).state == "running")
        launch.ensure_worker(db)
        assert len(workers_of(db)) == 1


@pytest.mark.slow
def test_a_worker_starts_whatever_the_working_folder_is(
    db: Path, tmp_path: Path, bad_spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example with `streamlit run some/where/app.py`, which finds the product only beside app.py."""
    (run,) = queue(db, bad_spec)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH")
    launch.ensure_worker(db)
    with looking_at(db) as store:
        wait_for(lambda: store.run(run).state == "failed" or not workers_of(db), pause=0.2)
        assert store.run(run).state == "failed", (files_of(db) / "worker.log").read_text()
