"""Where this process computes, and the locks that keep measuring apart from computing."""

from __future__ import annotations

import ctypes
import getpass
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kdnas_core.errors import BadInput
from kdnas_core.spec import USUAL_RUNTIMES, Device, Runtime

if TYPE_CHECKING:
    import torch

os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # read when torch is imported; it lacks operations

CUDA = Path("/dev/nvidiactl")  # exists where the driver is installed; looked up without torch
LOOK_EVERY_S = 0.5
TURN_S = 10.0
PAUSE_S = 0.2  # several times the polling interval of a waiting process


def device_lock() -> FileLock:
    """Returns the lock of this device that is held to measure, and to compute for seconds.

    Beside a training job the same model measures 2.6 to 4.3 times slower. Whoever computes for longer holds
    the locks of cores, of which this lock's holder takes all. The operating system releases a lock when its
    process ends. One thread must not take it twice.
    """
    return _lock("device")


def core_lock(core: int) -> FileLock:
    """Returns the lock of a core, held while computing; whoever measures holds those of all."""
    return _lock(f"core-{core}")


def _lock(name: str) -> FileLock:
    return FileLock(Path(tempfile.gettempdir()) / f"kdnas-{name}-{getpass.getuser()}.lock")


@contextmanager
def exclusive(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the whole device for a `with` block; processes in slots pause.

    Args:
        waiting: called twice a second until the device is taken; may raise to give up.
    """
    with _device(waiting), _all_cores(waiting):  # no slot is taken while the device lock is held
        yield


@dataclass(frozen=True)
class Turn:
    """What a process in a slot does for the others.

    Attributes:
        let_others: to be called often; pauses while another process wants to measure.
        alone: a context in which the process has the device for itself, for example to time a student.
        idle: a context in which the process computes nothing, and others have its cores.
    """

    let_others: Callable[[], None]
    alone: Callable[[], AbstractContextManager[None]]
    idle: Callable[[], AbstractContextManager[None]] = nullcontext


@contextmanager
def in_slot(slots: int, waiting: Callable[[], None] = lambda: None) -> Iterator[Turn]:
    """Computes in one of several slots of this device, each with as many of its cores.

    Args:
        slots: that the device is divided into; 1 takes the whole device.
        waiting: as for `exclusive`.
    """
    if slots == 1:
        with _all_cores(waiting):
            yield Turn(lambda: None, nullcontext)
        return
    slot = _Slot(max(1, cores() // slots), waiting)
    slot.take()
    try:
        yield Turn(slot.let_others, slot.alone, slot.idle)
    finally:
        slot.release()


def cores() -> int:
    """Returns the number of cores, each of which has a lock."""
    return os.cpu_count() or 1


@contextmanager
def _all_cores(waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the locks of all cores, which it takes as they become free."""
    with ExitStack() as held:
        for core in range(cores()):
            lock = core_lock(core)
            _take(lock, waiting)
            held.callback(lock.release)
        yield


class _Slot:
    """The locks of some cores; while taking them, a process holds the device lock for a moment."""

    def __init__(self, wanted: int, waiting: Callable[[], None]) -> None:
        self.wanted, self.waiting = wanted, waiting
        self.held: list[FileLock] = []
        self.looked_at = 0.0

    def take(self) -> None:
        while True:
            with _device(self.waiting):
                for core in range(cores()):
                    lock = core_lock(core)
                    if len(self.held) < self.wanted and _taken(lock, 0):
                        self.held.append(lock)
            if len(self.held) == self.wanted:
                return
            self.release()
            self.waiting()
            time.sleep(PAUSE_S / 2)

    def release(self) -> None:
        while self.held:
            self.held.pop().release()

    def let_others(self) -> None:
        if time.monotonic() - self.looked_at < PAUSE_S / 2:
            return
        device = device_lock()
        if _taken(device, 0):
            device.release()
        else:
            self.release()
            self.take()
        self.looked_at = time.monotonic()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self.idle(), exclusive(self.waiting):
            yield

    @contextmanager
    def idle(self) -> Iterator[None]:
        self.release()
        yield
        self.take()


def _device(waiting: Callable[[], None]) -> AbstractContextManager[None]:
    """Holds the device lock alone."""
    return held(device_lock(), waiting)


@contextmanager
def held(lock: FileLock, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock for a `with` block; `waiting` as for `exclusive`."""
    _take(lock, waiting)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turns(waiting: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Computes on the whole device for a long `with` block, and releases it briefly at intervals.

    Yields a function to call often: every ten seconds it releases the device for a moment, so that a timing
    does not wait for an hour of training.

    Args:
        waiting: as for `exclusive`.
    """
    with ExitStack() as held:
        held.enter_context(_all_cores(waiting))
        taken_at = time.monotonic()

        def let_others() -> None:
            nonlocal taken_at
            if time.monotonic() - taken_at > TURN_S:
                held.close()
                time.sleep(PAUSE_S)
                held.enter_context(_all_cores(waiting))
                taken_at = time.monotonic()

        yield let_others


def _take(lock: FileLock, waiting: Callable[[], None]) -> None:
    """Waits for the lock."""
    while not _taken(lock, LOOK_EVERY_S):
        waiting()


def _taken(lock: FileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    return True


def devices() -> tuple[Device, ...]:
    """Returns the choices of a device on this machine, without asking torch."""
    has_mps = platform.system() == "Darwin" and platform.machine() == "arm64"
    gpus: tuple[Device, ...] = (*(("cuda",) if CUDA.exists() else ()), *(("mps",) if has_mps else ()))
    return ("auto", "cpu", *gpus)


_computes_on: ContextVar[str] = ContextVar("computes_on", default="cpu")


@contextmanager
def computing_on(wanted: Device) -> Iterator[None]:
    """Chooses the device that models compute on until the end of the block.

    Args:
        wanted: "auto" takes a CUDA device if there is one, else the processor. Then cuDNN's attention is off
            in this process from here on.

    Raises:
        BadInput: this machine has no such device.
    """
    device = chosen_device(wanted)
    if device == "cuda":
        import torch

        # cuDNN plans anew for each length of a batch, which takes longer than a step
        torch.backends.cuda.enable_cudnn_sdp(False)
    token = _computes_on.set(device)
    try:
        yield
    finally:
        _computes_on.reset(token)


def chosen_device(wanted: Device) -> Device:
    """Returns the device of a choice: the same, or what "auto" takes.

    Raises:
        BadInput: this machine has no such device.
    """
    if wanted == "cpu":
        return wanted
    import torch

    has_cuda = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if has_cuda else "cpu"
    if not (has_cuda if wanted == "cuda" else torch.backends.mps.is_available()):
        raise BadInput(
            f"This machine has no {wanted} device that torch can use; go on where there is one, or begin "
            "anew with device=auto."
        )
    return wanted


def compute_device() -> torch.device:
    """Returns the device that models compute on, the processor outside of `computing_on`."""
    import torch

    return torch.device(_computes_on.get())


def gpus() -> list[str]:
    """Returns the GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` names them; none on a processor."""
    import torch

    if compute_device().type != "cuda":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def compute_name() -> str:
    """Returns the machine and the device that it computes on: results differ in rounding between them."""
    import torch

    on = _computes_on.get()
    if on == "cpu":
        return device_name()
    return f"{device_name()}, {torch.cuda.get_device_name() if on == 'cuda' else on}"


def other_device() -> list[str]:
    """Returns the name of the device that models compute on, for the key of a cached result.

    Empty on the processor, whose results were cached before there was a choice.
    """
    return [] if compute_device().type == "cpu" else [compute_name()]


@contextmanager
def moved(*modules: torch.nn.Module) -> Iterator[None]:
    """Moves modules to the device that models compute on, and back to the processor after the block.

    Not within inference mode, whose tensors could not be trained later.
    """
    device = compute_device()
    if device.type == "cpu":
        yield
        return
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module in modules:
            module.to("cpu")
        free_memory()


def free_memory() -> None:
    """Returns unused memory to the GPU and to the operating system."""
    import torch

    if compute_device().type == "cuda":
        torch.cuda.empty_cache()
    return_memory()


def return_memory() -> None:
    """Returns unused memory to the operating system; takes about 10 ms.

    The C library of Linux would keep it: more with each batch of another length, in all up to a gigabyte.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def free_gpu_bytes() -> int:
    """Returns the free memory of the GPU that models compute on; 0 on another device."""
    import torch

    return torch.cuda.mem_get_info()[0] if compute_device().type == "cuda" else 0


def autocast_to(dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """Returns a context in which models compute in a dtype; None for float32."""
    import torch

    return nullcontext() if dtype is None else torch.autocast(compute_device().type, dtype)


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
