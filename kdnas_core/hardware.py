"""The lock by which one process at a time measures or computes on this device; names of devices."""

from __future__ import annotations

import getpass
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from kdnas_core.spec import USUAL_RUNTIMES, Runtime

CUDA = Path("/dev/nvidiactl")  # exists where the driver is installed; looked up without torch
LOOK_EVERY_S = 0.5
TURN_S = 10.0
PAUSE_S = 0.2  # several times the polling interval of a waiting process


def device_lock() -> FileLock:
    """Returns the exclusive lock of this device, held while timing and while computing.

    Beside a training job the same model measures 2.6 to 4.3 times slower. The operating system releases the
    lock when its process ends. One thread must not take it twice.
    """
    return FileLock(Path(tempfile.gettempdir()) / f"kdnas-device-{getpass.getuser()}.lock")


@contextmanager
def exclusive(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the device lock for a `with` block.

    Args:
        waiting: called twice a second until the lock is taken; may raise to give up.
    """
    lock = device_lock()
    _take(lock, waiting)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turns(waiting: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Holds the device lock for a long `with` block, and releases it briefly at intervals.

    Yields a function to call often: every ten seconds it releases the lock for a moment, so that a timing
    does not wait for an hour of training.

    Args:
        waiting: as for `exclusive`.
    """
    lock = device_lock()
    taken_at = _take(lock, waiting)

    def let_others() -> None:
        nonlocal taken_at
        if time.monotonic() - taken_at > TURN_S:
            lock.release()
            time.sleep(PAUSE_S)
            taken_at = _take(lock, waiting)

    try:
        yield let_others
    finally:
        lock.release()


def _take(lock: FileLock, waiting: Callable[[], None]) -> float:
    """Waits for the lock; returns when it was taken."""
    while not _taken(lock):
        waiting()
    return time.monotonic()


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=LOOK_EVERY_S)
    except Timeout:
        return False
    return True


def runtimes() -> tuple[Runtime, ...]:
    """Returns the runtimes of this machine."""
    return (*USUAL_RUNTIMES, "torch-cuda") if CUDA.exists() else USUAL_RUNTIMES


@cache
def device_name() -> str:
    """Returns the machine and its processor, for example "node-3: AMD EPYC 9B45 (2 cores)"."""
    import psutil

    return f"{platform.node()}: {_processor()} ({psutil.cpu_count()} cores)"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
