from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import filelock
import psutil
import pytest

from kdnas_core import hardware as module
from kdnas_core.hardware import core_lock, device_lock, exclusive, in_slot, return_memory, turns

TRY = """
import filelock
from kdnas_core.hardware import core_lock, device_lock
try:
    with device_lock().acquire(timeout=0.1), core_lock(0).acquire(timeout=0.1):
        print("had it")
except filelock.Timeout:
    print("shut out")
"""

HOLD = """
import time
from kdnas_core.hardware import device_lock
with device_lock():
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a separate device lock for a test and the processes that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def other_process() -> str:
    return subprocess.run(
        [sys.executable, "-c", TRY], capture_output=True, text=True, check=True, env=os.environ.copy()
    ).stdout.strip()


def test_one_process_shuts_out_another_until_it_is_done() -> None:
    with device_lock():
        assert other_process() == "shut out"
    assert other_process() == "had it"


def test_the_lock_goes_with_a_process_that_is_killed() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "holding"
        with pytest.raises(filelock.Timeout):
            device_lock().acquire(timeout=0.1)
    finally:
        holder.kill()
        holder.communicate()
    with device_lock().acquire(timeout=5):
        pass


def test_an_exception_lets_go_of_the_lock() -> None:
    with pytest.raises(ZeroDivisionError), device_lock():
        raise ZeroDivisionError
    assert other_process() == "had it"


# Turns


class GivenUp(Exception):
    pass


def is_free() -> bool:
    """Whether nothing measures, and nothing computes on the first core."""
    try:
        with device_lock().acquire(timeout=0), core_lock(0).acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


class Clock:
    """A clock that only moves if it is set, or by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.free_while_asleep: list[bool] = []
        monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds == module.PAUSE_S
        self.free_while_asleep.append(is_free())
        self.now += seconds


def test_a_long_block_has_the_device_to_itself() -> None:
    with turns():
        assert other_process() == "shut out"
    assert other_process() == "had it"


def test_others_are_let_in_each_ten_seconds_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with turns() as let_others:
        let_after = []
        for second in range(1, 36):
            clock.now += 1
            asleep = len(clock.free_while_asleep)
            let_others()
            let_after += [second] * (len(clock.free_while_asleep) - asleep)
            assert not is_free()
    assert let_after == [11, 22, 33]  # its turn begins when it has the device again
    assert clock.free_while_asleep == [True] * 3
    assert is_free()


def test_who_waits_gets_the_device_when_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.0)
    had_it = threading.Event()

    def measure() -> None:
        with exclusive():
            had_it.set()

    with turns() as let_others:
        waiting = threading.Thread(target=measure, daemon=True)
        waiting.start()
        assert not had_it.wait(0.1)
        for _ in range(20):
            let_others()
            if had_it.is_set():
                break
        assert had_it.is_set()
        waiting.join()
        assert not is_free()


def test_who_does_not_get_its_turn_back_can_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    clock, other, waits = Clock(monkeypatch), core_lock(0), []

    def waiting() -> None:
        waits.append(1)
        if len(waits) == 3:
            raise GivenUp

    monkeypatch.setattr(clock, "sleep", lambda seconds: other.acquire())
    with pytest.raises(GivenUp), turns(waiting) as let_others:
        clock.now += 11
        let_others()
    assert len(waits) == 3
    assert not is_free()  # the other still has it
    other.release()
    assert is_free()


@pytest.mark.parametrize("taken", [turns, exclusive])
def test_waiting_is_told_until_the_device_is_free(
    taken: Callable[..., AbstractContextManager[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    other, waits = core_lock(0), []
    other.acquire()

    def waiting() -> None:
        waits.append(1)
        if len(waits) == 4:
            other.release()

    with taken(waiting):
        assert not is_free()
    assert len(waits) == 4
    assert is_free()


def test_an_exception_in_a_long_block_lets_go_of_the_device() -> None:
    with pytest.raises(ZeroDivisionError), turns():
        raise ZeroDivisionError
    assert is_free()


def given_up() -> None:
    raise GivenUp


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "PAUSE_S", 0.001)


@pytest.mark.usefixtures("two_cores")
def test_two_slots_of_two_compute_at_once_and_a_third_waits() -> None:
    with in_slot(2), in_slot(2):
        with pytest.raises(GivenUp), in_slot(2, given_up):
            raise AssertionError
        with device_lock().acquire(timeout=0):  # whoever waits for a slot does not make others pause
            pass
    with in_slot(2, given_up):
        pass


@pytest.mark.usefixtures("two_cores")
def test_a_process_that_is_alone_waits_for_the_slots_and_they_for_it() -> None:
    done, order = threading.Event(), list[str]()

    def measure() -> None:
        with exclusive():
            order.append("measured")
        done.set()

    with in_slot(2) as turn:
        measuring = threading.Thread(target=measure, daemon=True)
        measuring.start()
        assert not done.wait(0.1)
        order.append("step")
        for _ in range(1000):
            turn.let_others()
            if done.wait(0.01):
                break
        order.append("next step")
        measuring.join()
    assert order == ["step", "measured", "next step"]


@pytest.mark.usefixtures("two_cores")
def test_a_slot_takes_the_whole_device_to_measure_and_then_its_share_again() -> None:
    ended = threading.Event()

    def compute() -> None:
        with in_slot(2) as other:
            while not ended.wait(0.001):
                other.let_others()

    computing = threading.Thread(target=compute, daemon=True)
    computing.start()
    with in_slot(2) as turn, turn.alone():
        assert not is_free()
        with pytest.raises(GivenUp), in_slot(2, given_up):
            raise AssertionError
    ended.set()
    computing.join()
    with in_slot(2, given_up), in_slot(2, given_up):
        pass  # all was given back


@pytest.mark.usefixtures("two_cores")
def test_the_only_slot_is_the_whole_device() -> None:
    with in_slot(1) as turn:
        turn.let_others()
        with turn.alone():
            assert not is_free()
        assert not is_free()
    assert is_free()


@pytest.mark.usefixtures("two_cores")
def test_a_slot_that_waits_for_another_gives_it_its_cores() -> None:
    with in_slot(2) as turn, in_slot(2):
        with pytest.raises(GivenUp), in_slot(2, given_up):
            raise AssertionError
        with turn.idle(), in_slot(2, given_up):
            pass
        with pytest.raises(GivenUp), in_slot(2, given_up):
            raise AssertionError


@pytest.mark.usefixtures("two_cores")
def test_a_long_computation_shuts_out_slots_and_timings_but_no_slot_pauses_for_it() -> None:
    with in_slot(2) as turn:
        with pytest.raises(GivenUp), in_slot(1, given_up):
            raise AssertionError
        with device_lock().acquire(timeout=0):  # nobody held it, so the slot goes on
            pass
        turn.let_others()
    with in_slot(1):
        for waits in (in_slot(2, given_up), exclusive(given_up), in_slot(1, given_up)):
            with pytest.raises(GivenUp), waits:
                raise AssertionError


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return it themselves")
def test_memory_that_was_freed_is_returned_to_the_operating_system() -> None:
    blocks = [b"x" * 100_000 for _ in range(2_000)]
    pinned = blocks[::20]  # what the C library would stop at
    del blocks
    before = psutil.Process().memory_info().rss
    return_memory()
    assert psutil.Process().memory_info().rss < before - 50_000_000
    assert pinned


def test_a_c_library_that_cannot_return_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    return_memory()
