"""One measurement or one computation at a time on this device, whatever process of ours it is in."""

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

CUDA = Path("/dev/nvidiactl")  # there where a driver is, and looking costs nothing
LOOK_EVERY_S = 0.5
TURN_S = 10.0
PAUSE_S = 0.2  # several times the interval at which a waiting process polls


def device_lock() -> FileLock:
    """The exclusive lock of this device; held while timing and while computing.

    Beside a training job the same model reads 2.6 to 4.3 times slower. The lock goes with the process that
    holds it, however that ends. It must not be taken twice by one thread.
    """
    return FileLock(Path(tempfile.gettempdir()) / f"kdnas-device-{getpass.getuser()}.lock")


@contextmanager
def exclusive(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Has the device to itself for a `with` block.

    Args:
        waiting: called twice a second until it is this process's turn; may raise to give up.
    """
    lock = device_lock()
    _take(lock, waiting)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turns(waiting: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Has the device to itself for a long `with` block, and lets others of ours have it now and then.

    Yields a function to call often: each ten seconds it lets the device go for a moment, so that a timing
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
    """The runtimes that this machine may have."""
    return (*USUAL_RUNTIMES, "torch-cuda") if CUDA.exists() else USUAL_RUNTIMES


@cache
def device_name() -> str:
    """The machine and its processor, for example "node-3: AMD EPYC 9B45 (2 cores)"."""
    import psutil

    return f"{platform.node()}: {_processor()} ({psutil.cpu_count()} cores)"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
