"""The journal of a sweep of latencies: each reading is in the store the moment it is taken."""

from __future__ import annotations

from collections.abc import Callable

from kdnas_core.measure.reading import LatencyReading
from kdnas_core.runs.progress import Progress, Told
from kdnas_core.runs.rows import Candidate, Sweep
from kdnas_core.runs.store import Store
from kdnas_core.search.sweep import SweepListener, check_sweep, measure_sweep
from kdnas_core.spec import SweepSpec


def check_latency(store: Store, candidate: Candidate, how: SweepSpec) -> str | None:
    """Refuses what could not be measured for what lies outside the store: the teacher and the runtimes.

    Returns:
        A sentence about what is left out; None where nothing is.

    Raises:
        BadInput: says why.
    """
    return check_sweep(store.run(candidate.run).spec, how)


def measure(store: Store, sweep: Sweep, check: Callable[[], None], told: Told) -> None:
    """Measures the points of a sweep that are not there yet.

    Args:
        store: open for writing, in this thread.
        sweep: claimed.
        check: called often; raises to end the work.
        told: called at each point.

    Raises:
        BadInput: it cannot be measured.
    """
    progress = Progress(store, sweep.job, store.update_sweep, check, told)

    def measured(reading: LatencyReading) -> None:
        store.add_reading(sweep.id, reading)

    listener = SweepListener(check, progress.waiting, progress.say, progress.step, measured)
    architecture = store.candidate(sweep.candidate).architecture
    measure_sweep(store.run(sweep.run).spec, sweep.spec, architecture, sweep.step, listener)
