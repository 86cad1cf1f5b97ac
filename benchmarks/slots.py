"""How many candidates are judged in an hour, by the number of slots?

Run it with `python -m benchmarks.slots --slots 1 2`. Each number runs the same search of the packaged
teacher, in turns: an episode of random shapes, all trained to the end, whose latencies are known. Counted is
the time from the claim of the run to its end, with the start of the processes. It compares the losses too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.store import opened
from kdnas_core.runs.worker import work_on
from kdnas_core.search.prepare import Prepared, prepare
from kdnas_core.spec import RunSpec, parse_spec, with_settings

SETTINGS = ["search.controller=random", "search.prune=false", "search.remember=false", "search.episodes=1"]


def main() -> None:
    """Prints a line for each round, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--corpus", default="packaged")
    given = parser.parse_args()
    sizes = [f"search.candidates={given.candidates}", f"proxy.steps={given.steps}"]
    fields = RunSpec(corpus=given.corpus).model_dump(exclude_none=True)
    spec = parse_spec(with_settings(fields, [*SETTINGS, *sizes, "latency.budget_speedup=1.5"]))
    prepared = prepare(spec, print)
    _judged(prepared, 1)  # measures the latencies
    rows: dict[int, list[float]] = {slots: [] for slots in given.slots}
    losses: dict[int, list[float | None]] = {}
    for _ in range(given.rounds):
        for slots in given.slots:
            seconds, losses[slots] = _judged(prepared, slots)
            rows[slots].append(3600 * given.candidates / seconds)
            print(slots, round(rows[slots][-1]), losses[slots], flush=True)
    hourly = {slots: round(statistics.median(found)) for slots, found in rows.items()}
    print(json.dumps({"threads": torch.get_num_threads(), "candidates_an_hour": hourly, "losses": losses}))


def _judged(prepared: Prepared, slots: int) -> tuple[float, list[float | None]]:
    """Judges an episode; returns the seconds that it took and the losses of its candidates."""
    search = prepared.spec.search.model_copy(update={"slots": slots})
    spec = prepared.spec.model_copy(update={"search": search})
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "runs.db") as store:
        run = store.run(store.create_run(spec, Worker.this_process()))
        began = time.monotonic()
        if work_on(store, run, replace(prepared, spec=spec)) != "finished":
            raise SystemExit(store.run(run.id).error)
        return time.monotonic() - began, [each.loss for each in store.candidates(run.id)]


if __name__ == "__main__":
    main()
