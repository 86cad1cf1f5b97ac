"""Defers signals until the work can end without loss."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 10.0


@contextmanager
def put_off() -> Iterator[Callable[[], bool]]:
    """Defers SIGINT and SIGTERM for a `with` block; yields a function that returns whether one came.

    The work has to call it often, and to end if it returns true. If the block does not end within ten seconds
    of the signal, or if a second signal comes, the work is interrupted at any point. Outside the main thread,
    nothing is deferred.

    Raises:
        KeyboardInterrupt: after those ten seconds, or at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    timers: list[threading.Timer] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if timers:
            raise KeyboardInterrupt
        timers.append(threading.Timer(GRACE_S, _thread.interrupt_main, [number]))
        timers[0].daemon = True
        timers[0].start()

    # ignored signals stay ignored: Ctrl-C in a shell must not end its background commands
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield lambda: bool(timers)
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
