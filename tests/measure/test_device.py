from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

from kdnas_core.measure.device import device_lock

TRY = """
import filelock
from kdnas_core.measure.device import device_lock
try:
    with device_lock().acquire(timeout=0.1):
        print("had it")
except filelock.Timeout:
    print("shut out")
"""

HOLD = """
import time
from kdnas_core.measure.device import device_lock
with device_lock():
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of this test alone, in this process and in those that it starts."""
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
