"""Signals that wait until work is where it can be ended without loss."""

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
    """Puts off Ctrl-C and a polite kill for a `with` block; gives what says whether one came.

    The work has to look often. Where it does not look within ten seconds, or a second signal comes, the work
    is interrupted wherever it is. Only the main thread can do this; in another nothing is put off.

    Raises:
        KeyboardInterrupt: after those ten seconds, or the second signal.
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

    # what is ignored stays so: a command in the background of a shell is not to end with its Ctrl-C
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
