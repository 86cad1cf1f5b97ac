from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kdnas_core.errors import Failure
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.runs import slots as module
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.slots import Slot, SlotPool, slots_for
from kdnas_core.runs.store import opened
from kdnas_core.runs.worker import work_on
from kdnas_core.search.prepare import prepare
from kdnas_core.spec import LatencySpec, RunSpec, SearchSpec
from tests.tiny_runs import own_machine, remember_latencies, tiny_run, wait_for

# answers at once, but ends at candidates of the odd hundreds until a file says that it has done so before
ACTS = """
import os, sys
folder = os.path.dirname(sys.stdin.readline().split('"db":"')[1].split('"')[0])
print("{}", flush=True)
for line in sys.stdin:
    number = int(line)
    mark = os.path.join(folder, f"ended-{number}")
    if number >= 300 or 100 <= number < 200 and not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(9)
    if 200 <= number < 250:
        input()
    error = '"no room"' if 250 <= number < 300 else "null"
    print('{"error": ' + error + "}", flush=True)
"""


class Paused(Exception):
    pass


@pytest.fixture
def acting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SlotPool]:
    """Makes a pool whose processes act as `ACTS` says."""
    monkeypatch.setattr(module, "COMMAND", ["-c", ACTS])

    def pool(count: int, check: Callable[[], None] = lambda: None) -> SlotPool:
        slot = Slot(db=tmp_path / "runs.db", run=1, fence=1, slots=count, threads=1, dtype="float32")
        return SlotPool(slot, check, said.append)

    said: list[str] = []
    return pool


def children() -> list[psutil.Process]:
    alive = psutil.Process().children()
    return [each for each in alive if each.status() != psutil.STATUS_ZOMBIE and ACTS in each.cmdline()]


def test_all_candidates_of_all_episodes_are_judged_by_as_many_processes_as_there_are_slots(
    acting: Callable[..., SlotPool],
) -> None:
    with acting(2) as pool:
        assert sorted(pool.judged([1, 2, 3, 4, 5])) == [1, 2, 3, 4, 5]
        assert list(pool.judged([6])) == [6]
        assert len(children()) == 2
    assert not children()


def test_a_candidate_whose_process_ends_is_judged_by_another(acting: Callable[..., SlotPool]) -> None:
    with acting(2) as pool:
        assert sorted(pool.judged([1, 101, 2, 102])) == [1, 2, 101, 102]


def test_processes_that_end_again_and_again_end_the_search_with_a_sentence(
    acting: Callable[..., SlotPool],
) -> None:
    with acting(1) as pool, pytest.raises(Failure, match="candidate 300 ends again and again"):
        list(pool.judged([300]))
    assert not children()


def test_what_a_process_cannot_do_ends_the_search_and_no_candidate(acting: Callable[..., SlotPool]) -> None:
    with acting(2) as pool, pytest.raises(Failure, match="no room"):
        list(pool.judged([1, 250, 2]))
    assert not children()


def test_a_search_that_is_paused_ends_its_processes_in_the_middle(acting: Callable[..., SlotPool]) -> None:
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            raise Paused

    with pytest.raises(Paused), acting(2, check) as pool:
        list(pool.judged([200, 201]))
    assert not children()


def test_a_process_that_is_killed_while_it_waits_is_replaced(acting: Callable[..., SlotPool]) -> None:
    with acting(2) as pool:
        assert sorted(pool.judged([1, 2])) == [1, 2]
        killed = children()[0]
        killed.send_signal(signal.SIGKILL)
        killed.wait(10)
        assert sorted(pool.judged([3, 4, 5])) == [3, 4, 5]


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return load_teacher(str(tiny_teacher))


def test_only_a_long_search_measures_how_many_slots_are_best(
    monkeypatch: pytest.MonkeyPatch, teacher: Teacher
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "best_number", lambda parameters, waiting: 3)
    monkeypatch.setattr(module, "cores", lambda: 4)
    assert slots_for(RunSpec(), teacher, said.append) == 3
    assert said == ["measuring how many candidates to judge side by side"]
    short = RunSpec(search=SearchSpec(episodes=5, candidates=6))
    assert slots_for(short, teacher, said.append) == 1
    asked = [SearchSpec(episodes=1, candidates=1, slots=slots) for slots in (3, 5)]
    assert [slots_for(RunSpec(search=each), teacher, said.append) for each in asked] == [3, 4]
    assert len(said) == 1


def test_students_are_timed_one_at_a_time_on_a_gpu_and_each_process_sees_one(
    acting: Callable[..., SlotPool], monkeypatch: pytest.MonkeyPatch, teacher: Teacher
) -> None:
    monkeypatch.setattr(module, "gpus", lambda: ["4", "7"])
    timed_there = RunSpec(latency=LatencySpec(budget_ms=1.0, runtime="torch-cuda"))
    assert slots_for(timed_there, teacher, lambda activity: None) == 1
    with acting(2) as pool:
        list(pool.judged([1, 2]))
        assert sorted(each.environ()["CUDA_VISIBLE_DEVICES"] for each in children()) == ["4", "7"]


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def spec(
    tiny_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunSpec]:
    """A run of two episodes, whose latencies are known and whose candidates are pruned."""
    with own_machine(tmp_path_factory.mktemp("machine")):
        spec = tiny_run(tiny_teacher, corpus_file, latency={"budget_speedup": 0.01, "sequence_length": 16})
        spec = spec.model_copy(
            update={
                "search": spec.search.model_copy(update={"episodes": 2, "candidates": 6, "remember": False})
            }
        )
        remember_latencies(spec)
        yield spec


def test_one_slot_and_two_give_the_same_architectures_states_and_losses(
    spec: RunSpec, tmp_path: Path
) -> None:
    found, losses = [], []
    for count in (1, 2):
        chosen = spec.model_copy(update={"search": spec.search.model_copy(update={"slots": count})})
        with opened(tmp_path / f"{count}.db") as store:
            run = store.run(store.create_run(chosen, Worker.this_process()))
            assert work_on(store, run, prepare(chosen, lambda activity: None)) == "finished"
            candidates = store.candidates(run.id)
            losses.append([store.layer_losses(each.id) for each in candidates])
            found.append(
                [(each.architecture, each.state, each.step, each.loss, each.reward) for each in candidates]
            )
    assert found[0] == found[1]
    assert losses[0] == losses[1]
    assert {state for _, state, *_ in found[0]} == {"done", "pruned"}


@pytest.mark.slow
def test_a_killed_worker_leaves_no_process_behind(spec: RunSpec, tmp_path: Path) -> None:
    slow = spec.proxy.model_copy(update={"steps": 5_000})
    search = spec.search.model_copy(update={"slots": 2})
    with opened(tmp_path / "runs.db") as store:
        store.create_run(spec.model_copy(update={"proxy": slow, "search": search}))
    line = [sys.executable, "-m", "kdnas_core", "worker", "--until-idle", "--db", str(tmp_path / "runs.db")]
    worker = psutil.Popen(line, env=os.environ.copy())
    try:
        with opened(tmp_path / "runs.db", read_only=True) as store:
            wait_for(lambda: [each.state for each in store.candidates(1)].count("distilling") == 2)
        slots = worker.children()
        assert len(slots) == 2
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not any(map(runs, slots)))
