from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import RunState, Worker
from kdnas_core.runs.records import LayerLoss
from kdnas_core.runs.store import LeaseLost, Store, connect, connect_read_only, opened
from kdnas_core.runs.store.migrations import migrations
from kdnas_core.spec import METHOD, RunSpec, SearchSpec, quick_spec
from tests.filled_store import add_episode, begin_run, judge, reading, teacher_facts
from tests.sentences import is_one_sentence
from tests.tiny_runs import ROOT, files_in, wait_for

VERSION_1 = Path(__file__).parent / "fixtures" / "version_1.db"
VERSIONS = [
    "1_runs_candidates_layer_losses",
    "2_terms_notes_languages",
    "3_students_scorings",
    "4_sweeps_estimates",
    "5_standard_errors_cuts",
    "6_jobs_samples",
    "7_checks_exports",
    "8_errors_of_scores",
    "9_outlook",
    "10_resampled",
    "11_revisions_layers_notes",
]
A, B, C = (Architecture(layers, 192, 768, 12) for layers in (2, 3, 4))
SPAWN: SpawnContext = multiprocessing.get_context("spawn")
DEAD = Worker(pid=1, host=Worker.this_process().host)  # it holds no lock


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(db: Path) -> Iterator[Store]:
    with opened(db) as store:
        yield store


def raw(db: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(db)) as connection, connection:
        return connection.execute(statement, values).fetchall()


# --- round trips ------------------------------------------------------------------------------------------


def test_a_new_run_reads_back_as_it_was_queued(store: Store) -> None:
    spec = RunSpec(name="naïve “name” 模型", seed=2**32 - 1)
    before = time.time()
    run = store.run(store.create_run(spec))
    assert run.spec == spec
    assert (run.id, run.name, run.state, run.episode, run.seconds) == (1, spec.name, "queued", 0, 0.0)
    unknown = [run.worker, run.teacher, run.error, run.request, run.finished_at, run.heartbeat_at]
    assert unknown == [None] * 6
    assert before <= run.created_at <= time.time()
    assert run.total == spec.search.episodes * spec.search.candidates


def test_the_teacher_and_the_filled_spec_read_back(store: Store) -> None:
    run = store.create_run(quick_spec())
    filled = quick_spec(seed=5)
    store.set_teacher(run, filled, teacher_facts())
    assert store.run(run).teacher == teacher_facts()
    assert store.run(run).spec == filled


def test_a_proposed_candidate_knows_nothing_yet(store: Store) -> None:
    run = begin_run(store)
    store.begin_episode(run, 1, [(A, None), (B, 0.25)])
    first, second = store.candidates(run)
    assert (first.architecture, first.predicted_reward) == (A, None)
    assert (second.architecture, second.predicted_reward) == (B, 0.25)
    assert first.state == second.state == "proposed"
    unknown = [first.latency, first.loss, first.reward, first.parameters, first.flops, first.error]
    assert unknown == [None] * 6
    assert first.scores == first.languages == {}
    assert first.notes == ()
    assert first.weights is False
    assert store.run(run).episode == 1


def test_an_embedding_size_survives(store: Store) -> None:
    architecture = replace(A, embedding_size=64)
    run = begin_run(store)
    (candidate,) = add_episode(store, run, 1, [architecture])
    assert store.candidate(candidate).architecture == architecture


def test_all_that_is_known_of_a_candidate_reads_back(store: Store) -> None:
    run = begin_run(store)
    (candidate,) = add_episode(store, run, 1, [A])
    latency = reading(1.5)
    fields = {
        "loss": 0.1,
        "reward": 0.9,
        "parameters": 10**10,
        "flops": 10**12,
        "error": "one\ntwo",
        "step": 3,
    }
    store.update_candidate(candidate, latency=latency.to_dict(), scores={"sst2": 0.5}, weights=1, **fields)
    row = store.candidate(candidate)
    assert row.latency == latency
    assert row.scores == {"sst2": 0.5}
    assert row.weights is True
    assert {name: getattr(row, name) for name in fields} == fields


def test_notes_and_losses_by_language_read_back(store: Store) -> None:
    (candidate,) = add_episode(store, begin_run(store), 1, [A])
    notes = ["Attention loss skipped: 3 heads of the student against 12 of the teacher.", "“naïve” 模型"]
    store.update_candidate(candidate, notes=notes, languages={"de": 0.25, "sw": float("inf")})
    row = store.candidate(candidate)
    assert row.notes == tuple(notes)
    assert row.languages == {"de": 0.25, "sw": float("inf")}
    assert (row.to_dict()["notes"], row.to_dict()["languages"]) == (notes, row.languages)
    store.update_candidate(candidate, notes=row.notes[:1])  # a tuple does as well
    assert store.candidate(candidate).notes == row.notes[:1]


def test_a_standard_error_and_what_a_candidate_was_cut_from_read_back(store: Store) -> None:
    run = begin_run(store)
    first, second = add_episode(store, run, 1, [A, B])
    cut = (LayerSource(1, (1, 5, 12)), LayerSource(6, (2,)))
    store.update_candidate(first, loss=0.5, loss_se=0.004, cut_from=[asdict(source) for source in cut])
    row, other = store.candidate(first), store.candidate(second)
    assert (row.loss_se, row.cut_from) == (0.004, cut)
    assert (other.loss_se, other.cut_from) == (None, ())
    printed = json.loads(json.dumps(row.to_dict()))
    assert printed["loss_se"] == 0.004
    assert printed["cut_from"] == [{"layer": 1, "heads": [1, 5, 12]}, {"layer": 6, "heads": [2]}]
    assert (other.to_dict()["loss_se"], other.to_dict()["cut_from"]) == (None, [])


@settings(max_examples=50, deadline=None)
@given(value=st.floats(allow_nan=False))
def test_a_float_reads_back_to_the_last_bit_and_infinity_as_infinity(value: float) -> None:
    row = _one_candidate(loss=value)
    assert row.loss == value


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_loss_that_is_not_known_or_not_a_number_reads_as_none(value: float | None) -> None:
    row = _one_candidate(loss=value)
    assert row.loss is None
    assert row.point[1] != row.point[1], "a point without a loss is NaN, which never wins"


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ({}, 0.25),
        ({"sst2": 0.5}, 0.25),  # of a scoring later on, which other candidates may not have had
        ({"sst2 (proxy)": 0.5, "cola (proxy)": 0.75, "sst2": 0.9}, 0.375),
    ],
)
def test_the_error_of_a_candidate_is_by_its_proxies_where_its_run_has_tasks(
    scores: dict[str, float], error: float
) -> None:
    assert _one_candidate(loss=0.25, scores=scores).point[1] == pytest.approx(error)


_made: list[tuple[Store, int]] = []


def _one_candidate(**fields: Any) -> Any:
    """A candidate of a store that is made once, with these fields set."""
    if not _made:
        store = Store(Path("in-memory.db"), sqlite3.connect(":memory:", isolation_level=None))
        store.migrate()
        run = begin_run(store)
        _made.append((store, add_episode(store, run, 1, [A])[0]))
    store, candidate = _made[0]
    store.update_candidate(candidate, **fields)
    return store.candidate(candidate)


def test_layer_losses_read_back_by_step_layer_and_teacher_layer(store: Store) -> None:
    (candidate,) = add_episode(store, begin_run(store), 1, [A])
    later = [LayerLoss(10, 1, 3, 0.5), LayerLoss(10, 1, 2, float("inf"))]
    earlier = [LayerLoss(0, 2, 6, 1.0), LayerLoss(0, 1, 3, 1.25)]
    store.add_layer_losses(candidate, later)
    store.add_layer_losses(candidate, earlier)
    assert store.layer_losses(candidate) == [earlier[1], earlier[0], later[1], later[0]]


def test_one_pair_of_layers_has_a_loss_for_each_term(store: Store) -> None:
    (candidate,) = add_episode(store, begin_run(store), 1, [A])
    losses = [
        LayerLoss(0, 1, 3, 0.5, "attention"),
        LayerLoss(0, 0, 0, 0.9, "embedding"),
        LayerLoss(0, 1, 3, 0.7),
        LayerLoss(0, 1, 3, 0.6, "hidden-2"),
        LayerLoss(0, 3, 7, 8.5, "prediction"),
    ]
    store.add_layer_losses(candidate, losses[::-1])
    assert store.layer_losses(candidate) == losses


def test_an_evaluation_that_is_made_again_takes_the_place_of_the_first(store: Store) -> None:
    (candidate,) = add_episode(store, begin_run(store), 1, [A])
    store.add_layer_losses(candidate, [LayerLoss(0, 1, 3, 0.5), LayerLoss(0, 2, 6, 0.7)])
    store.add_layer_losses(candidate, [LayerLoss(0, 1, 3, 0.4)])
    assert store.layer_losses(candidate) == [LayerLoss(0, 1, 3, 0.4), LayerLoss(0, 2, 6, 0.7)]


def test_an_evaluation_is_written_whole_or_not_at_all(store: Store) -> None:
    (candidate,) = add_episode(store, begin_run(store), 1, [A])
    with pytest.raises(sqlite3.IntegrityError):
        store.add_layer_losses(candidate, [LayerLoss(0, 1, 3, 0.5), LayerLoss(0, 2, 6, float("nan"))])
    assert store.layer_losses(candidate) == []
    store.add_layer_losses(candidate, [LayerLoss(0, 1, 3, 0.5)])  # and the next is not in its way
    assert len(store.layer_losses(candidate)) == 1


def test_an_episode_is_written_whole_or_not_at_all(store: Store) -> None:
    run = begin_run(store)
    add_episode(store, run, 1, [A])
    with pytest.raises(sqlite3.IntegrityError):
        store.begin_episode(run, 2, [(B, None), (A, None)])  # A was proposed before
    assert [candidate.architecture for candidate in store.candidates(run)] == [A]
    assert store.run(run).episode == 1


def test_two_runs_may_propose_the_same_architecture(store: Store) -> None:
    for _ in range(2):
        run = begin_run(store)
        add_episode(store, run, 1, [A])
        assert [candidate.architecture for candidate in store.candidates(run)] == [A]


def test_runs_are_listed_newest_first(store: Store) -> None:
    ids = [store.create_run(quick_spec()) for _ in range(3)]
    assert [run.id for run in store.runs()] == ids[::-1]


def test_a_run_or_candidate_that_does_not_exist_is_said_in_a_sentence(store: Store) -> None:
    for look in (store.run, store.candidate, store.delete_run, store.resume):
        with pytest.raises(BadInput, match="There is no") as refused:
            look(77)
        assert is_one_sentence(str(refused.value))


def test_a_beat_counts_what_was_worked_since_the_last(store: Store, db: Path) -> None:
    run = begin_run(store)
    raw(db, "UPDATE jobs SET heartbeat_at = heartbeat_at + 3600 WHERE subject = ?", run)  # a clock stepped
    store.heartbeat(run, 10.0)
    assert store.run(run).seconds == 10
    store.end_run(run, "finished")
    store.heartbeat(run, 5.0)  # a late one
    assert store.run(run).seconds == 10


# --- ids --------------------------------------------------------------------------------------------------


def test_the_id_of_a_deleted_run_is_never_given_to_another(store: Store) -> None:
    first, second = store.create_run(quick_spec()), store.create_run(quick_spec())
    store.delete_run(second)
    store.delete_run(first)
    assert store.create_run(quick_spec()) == second + 1


def test_the_id_of_a_deleted_candidate_is_never_given_to_another(store: Store) -> None:
    run = begin_run(store)
    ids = add_episode(store, run, 1, [A, B])
    store.end_run(run, "stopped")
    store.delete_run(run)
    assert min(add_episode(store, begin_run(store), 1, [A])) > max(ids)


# --- deleting ---------------------------------------------------------------------------------------------


def test_deleting_a_run_takes_its_candidates_losses_and_files_and_no_others(store: Store, db: Path) -> None:
    kept, gone = begin_run(store), begin_run(store)
    for run in (kept, gone):
        (candidate,) = add_episode(store, run, 1, [A])
        judge(store, run, candidate)
        store.end_run(run, "finished")
    assert store.files(gone).is_dir()
    store.delete_run(gone)
    assert [run.id for run in store.runs()] == [kept]
    assert not store.files(gone).exists()
    assert store.files(kept, store.candidates(kept)[0].id).is_dir()
    assert raw(db, "SELECT DISTINCT run FROM candidates") == [(kept,)]
    assert raw(db, "SELECT DISTINCT candidate FROM layer_losses") == [(store.candidates(kept)[0].id,)]


def test_a_running_run_is_not_deleted(store: Store) -> None:
    run = begin_run(store)
    (candidate,) = add_episode(store, run, 1, [A])
    judge(store, run, candidate)
    with pytest.raises(BadInput, match="stop it before") as refused:
        store.delete_run(run)
    assert is_one_sentence(str(refused.value))
    assert store.candidate(candidate).state == "done"
    assert (store.files(run, candidate) / "config.json").exists()


def test_a_run_whose_worker_died_can_be_deleted(store: Store) -> None:
    run = store.create_run(quick_spec())
    store.claim_run(DEAD)
    store.delete_run(run)
    assert store.runs() == []


# --- what can be asked of a run in each state -------------------------------------------------------------

STATES = ("queued", "running", "paused", "stopped", "interrupted", "killed", "finished", "failed")


def run_in(store: Store, state: str) -> int:
    """Adds a run in a state; "killed" is a run whose worker has died, which reads as interrupted."""
    if state == "queued":
        return store.create_run(quick_spec())
    run = store.create_run(quick_spec(), DEAD if state == "killed" else Worker.this_process())
    if state not in ("running", "killed"):
        store.end_run(run, state)  # type: ignore[arg-type]
    return run


@pytest.mark.parametrize(
    ("request_", "outcomes"),
    [
        # None: refused, the state stays
        ("pause", ["paused", "running", "paused", None, "paused", "paused", None, None]),
        ("stop", ["stopped", "running", "stopped", "stopped", "stopped", "stopped", None, None]),
    ],
)
def test_what_asking_makes_of_each_state(
    store: Store, request_: Literal["pause", "stop"], outcomes: list[RunState | None]
) -> None:
    for state, expected in zip(STATES, outcomes, strict=True):
        run = run_in(store, state)
        before = store.run(run).state
        if expected is None:
            with pytest.raises(BadInput) as refused:
                store.ask(run, request_)
            assert is_one_sentence(str(refused.value))
            assert store.run(run).state == before, state
        else:
            assert store.ask(run, request_) == expected, state
            assert store.run(run).state == expected, state
        asked = request_ if state == "running" else None
        assert store.run(run).request == asked, state


def test_what_resuming_makes_of_each_state(store: Store) -> None:
    outcomes = ["queued", "running", "queued", "queued", "queued", "queued", None, "queued"]
    for state, expected in zip(STATES, outcomes, strict=True):
        run = run_in(store, state)
        if expected is None:
            with pytest.raises(BadInput, match="nothing left to resume"):
                store.resume(run)
            assert store.run(run).state == state
        else:
            assert store.resume(run) == expected == store.run(run).state, state
            assert store.run(run).error is None


def test_resuming_a_running_run_takes_back_what_was_asked_of_it(store: Store) -> None:
    run = run_in(store, "running")
    store.ask(run, "stop")
    store.resume(run)
    assert store.run(run).request is None


def test_only_a_queued_run_is_claimed(store: Store) -> None:
    for state in STATES:
        run_in(store, state)
        claimed = store.claim_run(Worker.this_process())
        assert (claimed is not None) == (state == "queued"), state


def test_the_oldest_queued_run_is_claimed_first(store: Store) -> None:
    ids = [store.create_run(quick_spec()) for _ in range(3)]
    claimed = [store.claim_run(Worker.this_process()) for _ in range(4)]
    assert [run and run.id for run in claimed] == [*ids, None]


# --- workers that die -------------------------------------------------------------------------------------


CLAIM = """
import sys, time
from pathlib import Path
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.store import opened
with opened(Path(sys.argv[1])) as store:
    print(store.claim_run(Worker.this_process()).id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def serving(store: Store, db: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed the first run."""
    store.create_run(quick_spec())
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(db)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.wait()


def test_a_run_reads_as_running_while_its_worker_lives(
    store: Store, db: Path, serving: subprocess.Popen[str]
) -> None:
    raw(db, "UPDATE jobs SET heartbeat_at = heartbeat_at - 86400")  # whatever the clock says
    assert store.run(1).state == "running"
    serving.send_signal(signal.SIGSTOP)  # it cannot beat, but it can wake
    assert store.run(1).state == "running"


def test_a_killed_worker_is_seen_at_once_even_as_a_zombie(
    store: Store, serving: subprocess.Popen[str]
) -> None:
    serving.kill()  # and nobody waits for it: a zombie
    wait_for(lambda: psutil.Process(serving.pid).status() == psutil.STATUS_ZOMBIE)
    # its other threads may take a moment longer to end
    wait_for(lambda: store.run(1).state == "interrupted", seconds=5)
    serving.wait()
    assert [run.state for run in store.runs()] == ["interrupted"]


def test_a_reader_sees_a_killed_worker_too(db: Path, serving: subprocess.Popen[str]) -> None:
    serving.kill()
    serving.wait()
    with opened(db, read_only=True) as reader:
        assert reader.run(1).state == "interrupted"


def test_another_process_with_the_pid_of_a_dead_worker_is_not_taken_for_it(
    store: Store, db: Path, serving: subprocess.Popen[str]
) -> None:
    serving.kill()
    serving.wait()
    raw(db, "UPDATE jobs SET owner = json_set(owner, '$.pid', ?)", os.getpid())
    assert store.run(1).state == "interrupted"


# --- leases -----------------------------------------------------------------------------------------------


def test_whoever_lost_a_lease_writes_nothing_more(store: Store, db: Path) -> None:
    run = begin_run(store)
    (candidate,) = add_episode(store, run, 1, [A])
    first = store.leased(store.run(run).lease)
    raw(db, "UPDATE jobs SET state = 'queued'")  # as if its host had been unreachable
    again = store.claim_run(Worker.this_process())
    assert again is not None and again.fence == 2
    writes: tuple[Callable[[], object], ...] = (
        lambda: first.update_candidate(candidate, step=3),
        lambda: first.add_layer_losses(candidate, [LayerLoss(1, 1, 1, 0.5)]),
        lambda: first.begin_attempt(candidate),
        lambda: first.begin_episode(run, 2, [(B, None)]),
        lambda: first.set_activity(run, "still at it"),
        lambda: first.heartbeat(run, 9.0),
        lambda: first.end_run(run, "failed"),
    )
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    row = store.run(run)
    assert (row.state, row.activity, row.seconds, row.episode) == ("running", "", 0, 1)
    assert [each.step for each in store.candidates(run)] == [0] and store.layer_losses(candidate) == []
    store.leased(again.lease).set_activity(run, "at it")
    assert store.run(run).activity == "at it"


@pytest.mark.parametrize("over", ["stop", "delete"])
def test_a_lease_ends_with_its_work(store: Store, db: Path, over: str) -> None:
    run = begin_run(store)
    leased = store.leased(store.run(run).lease)
    leased.end_run(run, "stopped")
    if over == "delete":
        store.delete_run(run)
    with pytest.raises(LeaseLost):
        leased.set_activity(run, "still at it")


def test_attempts_that_ended_the_process_are_counted_and_others_are_not(store: Store, db: Path) -> None:
    run = store.create_run(quick_spec(), DEAD)
    (candidate,) = add_episode(store, run, 1, [A])
    store.begin_attempt(candidate)
    store.resume(run)  # its worker was killed
    claimed = store.claim_run(Worker.this_process())
    assert claimed is not None and claimed.attempts == 2
    assert store.candidate(candidate).attempts == 1
    store.begin_attempt(candidate)
    store.end_run(run, "paused")
    assert (store.candidate(candidate).attempts, store.run(run).attempts) == (1, 0)


# --- workers on other hosts -------------------------------------------------------------------------------


def test_a_worker_of_another_host_that_still_beats_is_not_taken_for_dead(store: Store) -> None:
    run = store.create_run(quick_spec())
    store.claim_run(replace(DEAD, host="another-host"))
    assert store.run(run).state == "running"


def test_a_worker_of_another_host_that_last_beat_a_day_ago_is_dead(store: Store, db: Path) -> None:
    """A recreated container has another host name: its killed run must not stay locked."""
    run = store.create_run(quick_spec())
    store.claim_run(replace(DEAD, host="another-host"))
    raw(db, "UPDATE jobs SET heartbeat_at = heartbeat_at - 86400")
    assert store.run(run).state == "interrupted"


def killed_in_episode_two(store: Store) -> tuple[int, list[int]]:
    """Adds a run that was killed during a candidate; its candidates are done, distilling, and proposed."""
    run = store.create_run(quick_spec())
    store.claim_run(DEAD)
    store.set_teacher(run, quick_spec(), teacher_facts())
    ids = add_episode(store, run, 1, [A, B, C])
    for candidate in ids[:2]:
        judge(store, run, candidate)
    store.update_candidate(ids[1], state="distilling", step=40, loss=None, reward=None, weights=0)
    return run, ids


def test_going_on_after_a_kill_forgets_what_was_half_done_and_nothing_else(store: Store) -> None:
    run, (done, half, proposed) = killed_in_episode_two(store)
    for candidate in (done, half):
        store.update_candidate(candidate, notes=["Attention loss skipped."], languages={"de": 0.5})
    row, losses = store.candidate(done), store.layer_losses(done)
    assert losses
    assert store.layer_losses(half)
    store.resume(run)
    claimed = store.claim_run(Worker.this_process())
    assert claimed is not None
    assert claimed.state == "running"
    assert store.candidate(done) == row
    assert store.layer_losses(done) == losses
    assert (store.candidate(half).state, store.candidate(half).step) == ("proposed", 0)
    assert (store.candidate(half).notes, store.candidate(half).languages) == ((), {})
    assert store.layer_losses(half) == []
    assert store.candidate(proposed).state == "proposed"


def test_a_claim_alone_forgets_what_was_half_done(store: Store, db: Path) -> None:
    run, (_, half, _) = killed_in_episode_two(store)
    raw(db, "UPDATE jobs SET state = 'queued' WHERE subject = ?", run)
    store.claim_run(Worker.this_process())
    assert store.candidate(half).state == "proposed"
    assert store.layer_losses(half) == []


def test_ending_a_run_leaves_no_candidate_in_hand(store: Store) -> None:
    run, (_, half, _) = killed_in_episode_two(store)
    store.end_run(run, "interrupted")
    assert store.candidate(half).state == "proposed"


@pytest.mark.parametrize("request_", ["pause", "stop"])
def test_a_killed_run_that_is_paused_or_stopped_has_no_candidate_in_hand(
    store: Store, request_: Literal["pause", "stop"]
) -> None:
    run, (done, half, _) = killed_in_episode_two(store)
    store.ask(run, request_)
    assert store.candidate(done).state == "done"
    assert store.candidate(half).state == "proposed"


# --- several processes ------------------------------------------------------------------------------------


def together(work: Callable[..., Any], *arguments: list[Any]) -> list[Any]:
    """Runs a function in several processes at once, and returns their results; raises their first error."""
    starts_at = time.time() + 2
    with ProcessPoolExecutor(len(arguments[0]), mp_context=SPAWN) as pool:
        begun = [pool.submit(_at, work, starts_at, *each) for each in zip(*arguments, strict=True)]
        return [one.result() for one in begun]


def _at(work: Callable[..., Any], starts_at: float, *arguments: Any) -> Any:
    time.sleep(max(0.0, starts_at - time.time()))
    return work(*arguments)


def _claim_all(db: Path) -> list[int]:
    claimed = []
    with opened(db) as store:
        while run := store.claim_run(Worker.this_process()):
            claimed.append(run.id)
    return claimed


@pytest.mark.slow
def test_each_queued_run_is_claimed_by_one_of_several_processes(db: Path) -> None:
    with opened(db) as store:
        queued = [store.create_run(quick_spec()) for _ in range(60)]
    claims = together(_claim_all, [db] * 4)
    assert sorted(run for claimed in claims for run in claimed) == queued


def _pause_and_resume(db: Path, run: int, times: int) -> None:
    with opened(db) as store:
        for _ in range(times):
            store.ask(run, "pause")
            store.resume(run)


@pytest.mark.slow
def test_what_reads_before_it_writes_is_not_locked_out_by_others_that_do(db: Path) -> None:
    with opened(db) as store:
        runs = [store.create_run(quick_spec()) for _ in range(4)]
    together(_pause_and_resume, [db] * 4, runs, [100] * 4)
    with opened(db, read_only=True) as store:
        assert {run.state for run in store.runs()} == {"queued"}


def _write(db: Path, run: int, candidate: int, times: int) -> None:
    for step in range(times):
        with opened(db) as store:
            store.update_candidate(candidate, step=step + 1)
            store.add_layer_losses(candidate, [LayerLoss(step, layer, layer, 0.5) for layer in range(1, 4)])
            store.heartbeat(run)


def _read(db: Path, run: int, candidate: int, times: int) -> None:
    for _ in range(times):
        with opened(db, read_only=True) as store:
            assert store.run(run).id == run
            assert len(store.candidates(run)) == 2
            assert len(store.layer_losses(candidate)) % 3 == 0, "half an evaluation was read"


def _write_or_read(writes: bool, db: Path, run: int, candidate: int, times: int) -> None:
    (_write if writes else _read)(db, run, candidate, times)


@pytest.mark.slow
def test_writers_and_readers_at_once_lose_nothing_and_are_never_locked_out(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        first, second = add_episode(store, run, 1, [A, B])
    times = 100
    together(
        _write_or_read,
        [True, True, False, False],
        [db] * 4,
        [run] * 4,
        [first, second, first, second],
        [times] * 4,
    )
    with opened(db, read_only=True) as store:
        for candidate in (first, second):
            assert store.candidate(candidate).step == times
            assert len(store.layer_losses(candidate)) == 3 * times


def _open_new_ones(folder: Path, starts_at: float, count: int) -> None:
    for number in range(count):
        while time.time() < starts_at + number * 0.03:
            pass  # not sleep, which would wake them one after another
        with opened(folder / f"{number}.db") as store:
            store.create_run(quick_spec())


@pytest.mark.slow
def test_several_processes_may_make_and_migrate_a_store_at_once(tmp_path: Path) -> None:
    count = 40
    old = range(0, count, 4)  # of version 1, with two runs
    for number in old:
        shutil.copyfile(VERSION_1, tmp_path / f"{number}.db")
    together(_open_new_ones, [tmp_path] * 4, [time.time() + 2.5] * 4, [count] * 4)
    for number in range(count):
        path = tmp_path / f"{number}.db"
        with opened(path) as store:
            assert len(store.runs()) == 4 + 2 * (number in old)
        assert [name for (name,) in raw(path, "SELECT name FROM _sqlite_migrations ORDER BY id")] == VERSIONS


def test_the_log_that_lets_readers_read_meanwhile_is_on(store: Store, db: Path) -> None:
    assert raw(db, "PRAGMA journal_mode") == [("wal",)]
    assert db.with_name("runs.db-wal").exists()


def test_a_reader_is_not_held_up_by_a_writer_in_the_middle_of_its_work(store: Store, db: Path) -> None:
    run = store.create_run(quick_spec())
    with closing(sqlite3.connect(db, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE runs SET name = 'half'")
        started = time.monotonic()
        with opened(db, read_only=True) as reader:
            assert reader.run(run).name == "quick"
        assert time.monotonic() - started < 5
        writer.execute("ROLLBACK")


# --- opening ----------------------------------------------------------------------------------------------


def test_nothing_can_be_written_through_a_reader(store: Store, db: Path) -> None:
    run = store.create_run(quick_spec())
    with opened(db, read_only=True) as reader:
        for write in (
            lambda: reader.create_run(quick_spec()),
            lambda: reader.set_activity(run, "meddling"),
            lambda: reader.delete_run(run),
            lambda: reader.ask(run, "stop"),
        ):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                write()
    assert [(row.state, row.activity) for row in store.runs()] == [("queued", "")]


def test_a_reader_sees_what_was_written_after_it_was_opened(store: Store, db: Path) -> None:
    store.create_run(quick_spec())
    with opened(db, read_only=True) as reader:
        assert len(reader.runs()) == 1
        store.create_run(quick_spec())
        assert len(reader.runs()) == 2


def _newer(path: Path) -> None:
    with opened(path) as store:
        store.create_run(quick_spec())
    raw(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, '99_later', '')",
        migrations.name,
    )


def _another_programs(path: Path) -> None:
    raw(path, "CREATE TABLE runs (id INTEGER PRIMARY KEY, distance REAL)")


def _another_programs_with_migrations(path: Path) -> None:
    raw(path, "CREATE TABLE _sqlite_migrations (id INTEGER, migration_set TEXT, name TEXT, applied_at TEXT)")
    raw(path, "INSERT INTO _sqlite_migrations VALUES (1, 'another', '1_runs_candidates_layer_losses', '')")


def _not_a_database(path: Path) -> None:
    path.write_text("name,loss\n" * 1000)


def _half_a_database(path: Path) -> None:
    path.write_bytes(VERSION_1.read_bytes()[:50])


@pytest.mark.parametrize("open_", [connect, connect_read_only])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_newer, "newer version"),
        (_another_programs, "another program"),
        (_another_programs_with_migrations, "another program"),
        (_not_a_database, "not a database of runs"),
        (_half_a_database, "not a database of runs"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    db: Path, open_: Callable[[Path], Store], make: Callable[[Path], None], says: str
) -> None:
    make(db)
    before = files_in(db.parent)
    with pytest.raises(BadInput, match=says) as refused:
        open_(db)
    assert is_one_sentence(str(refused.value))
    assert files_in(db.parent) == before


@pytest.mark.parametrize("open_", [connect, connect_read_only])
def test_a_store_that_is_refused_gets_no_company(db: Path, open_: Callable[[Path], Store]) -> None:
    _newer(db)
    with pytest.raises(BadInput):
        open_(db)
    assert [path.name for path in db.parent.iterdir()] == [db.name]


@pytest.mark.parametrize("open_", [connect, connect_read_only])
@pytest.mark.parametrize("name", [".", "missing/runs.db", "file.txt/runs.db"])
def test_a_place_that_cannot_hold_a_store_is_refused(
    tmp_path: Path, open_: Callable[[Path], Store], name: str
) -> None:
    (tmp_path / "file.txt").write_text("text")
    before = files_in(tmp_path)
    with pytest.raises(BadInput) as refused:
        open_(tmp_path / name)
    assert is_one_sentence(str(refused.value))
    assert files_in(tmp_path) == before


def test_an_empty_file_becomes_a_store(db: Path) -> None:
    db.touch()
    with opened(db) as store:
        assert store.runs() == []


def test_an_empty_file_reads_as_no_runs_or_is_refused_in_a_sentence(db: Path) -> None:
    """A first start that is killed before it creates the tables leaves such a file."""
    db.touch()
    try:
        with opened(db, read_only=True) as store:
            assert store.runs() == []
    except BadInput as refused:
        assert is_one_sentence(str(refused))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput) as refused:
            connect(tmp_path / "runs.db")
        assert is_one_sentence(str(refused.value))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["with space.db", "per%20cent.db", "question?mark.db", "hash#mark.db"])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / name) as store:
        store.create_run(quick_spec())
    assert (tmp_path / name).is_file()
    with opened(tmp_path / name, read_only=True) as store:
        assert len(store.runs()) == 1


# --- version 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_version_1_opens_and_reads_back(db: Path, read_only: bool) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db, read_only=read_only) as store:
        killed, finished = store.runs()
        assert [finished.name, finished.state] == ["quick", "finished"]
        assert store.run(finished.id).teacher == teacher_facts()
        assert (killed.name, killed.state, killed.spec.seed) == ("killed", "paused", 3)
        # which had no rungs, and computed on the processor
        searched = SearchSpec(controller="random", episodes=2, candidates=4, prune=False, static=False)
        assert (killed.spec.search, killed.spec.device) == (searched, "cpu")
        states = [candidate.state for candidate in store.candidates(finished.id)]
        assert states == ["done", "over_budget", "done"]
        states = [candidate.state for candidate in store.candidates(killed.id)]
        assert states == ["done", "failed", "distilling", "proposed"]
        done, failed, half, _ = store.candidates(killed.id)
        assert done.architecture == Architecture(3, 192, 768, 12, "gelu")
        assert done.loss == pytest.approx(0.50314505)
        assert done.latency is not None and (done.latency.samples, done.latency.n) == ((), 100)
        whole = store.candidate(done.id).latency
        assert whole is not None and len(whole.samples) == 100
        assert done.weights
        assert failed.error == "the loss was nan at step 3"
        assert (half.step, half.steps, half.loss) == (40, 80, None)
        losses = store.layer_losses(done.id)
        assert len(losses) == 25  # 5 evaluations of 2 + 2 + 1 losses: the last layer's two teachers are one
        assert sum(loss.loss for loss in losses) == pytest.approx(17.154226)


def test_a_store_of_version_1_goes_on_under_this_version(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db) as store:
        assert migrations.pending(store._db) == []
        store.delete_run(1)
        assert store.create_run(quick_spec()) == 3
    with opened(db) as store:
        assert [run.id for run in store.runs()] == [3, 2]


def test_a_run_that_another_version_has_judged_candidates_of_is_not_mixed_with_new_losses(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db) as store:
        before = store.run(2).state, store.candidates(2)
        with pytest.raises(BadInput, match="another version") as refused:
            store.resume(2)
        assert is_one_sentence(str(refused.value))
        assert (store.run(2).state, store.candidates(2)) == before


def test_a_run_of_another_version_without_a_judged_candidate_goes_on(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db) as store:
        store._db.execute("DELETE FROM candidates WHERE run = 2")
        assert store.resume(2) == "queued"
        (method,) = (row["method"] for row in store._db.query("SELECT method FROM runs WHERE id = 2"))
        assert method == METHOD


def test_the_losses_of_version_1_become_those_of_the_hidden_states(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    before = raw(
        db, "SELECT candidate, step, layer, teacher_layer, loss FROM layer_losses ORDER BY 1, 2, 3, 4"
    )
    with opened(db) as store:
        assert {loss.term for loss in store.layer_losses(1)} == {"hidden"}
        store.add_layer_losses(1, [LayerLoss(80, 1, 2, 0.5, "attention")])  # the pair has a hidden loss too
        assert (store.candidate(1).notes, store.candidate(1).languages) == ((), {})
    after = raw(
        db, "SELECT candidate, step, layer, teacher_layer, loss FROM layer_losses WHERE term = 'hidden'"
    )
    assert before
    assert sorted(after) == before
    assert raw(db, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'layer_losses_1%'") == [(0,)]


def test_the_losses_of_a_migrated_store_go_with_their_run(db: Path) -> None:
    shutil.copyfile(VERSION_1, db)
    with opened(db) as store:
        gone = [candidate.id for candidate in store.candidates(1)]
        store.delete_run(1)
    left = {candidate for (candidate,) in raw(db, "SELECT DISTINCT candidate FROM layer_losses")}
    assert left
    assert not left & set(gone)


def test_a_migration_that_is_cut_short_leaves_version_1(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(VERSION_1, db)
    before = raw(db, "SELECT sql FROM sqlite_master ORDER BY name")
    monkeypatch.setattr(migrations, "_record_applied", _power_cut)
    with pytest.raises(InterruptedError), opened(db):
        pass
    assert raw(db, "SELECT sql FROM sqlite_master ORDER BY name") == before
    monkeypatch.undo()
    with opened(db) as store:
        assert len(store.layer_losses(1)) == 25


def _power_cut(*_: object) -> None:
    raise InterruptedError


def test_opening_the_newest_version_again_writes_nothing(store: Store, db: Path) -> None:
    store.create_run(quick_spec())
    store.close()
    before = files_in(db.parent)
    with opened(db) as again:
        assert asdict(again.run(1))["state"] == "queued"
    assert files_in(db.parent) == before


def test_every_column_of_a_candidate_that_a_page_shows_counts_as_a_change(store: Store) -> None:
    run = begin_run(store)
    add_episode(store, run, 1, [A])
    [trigger] = store._db.query(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'candidates_revised_by_update'"
    )
    counted = set(re.search(r"UPDATE OF (.*?) ON", trigger["sql"])[1].split(", "))  # type: ignore[index]
    columns = set(store._db.table("candidates").columns_dict)
    assert columns - counted == {"id", "run", "revision", "step", "similarity"}
