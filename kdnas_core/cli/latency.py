"""The command that measures a candidate's latency in several runtimes, batch sizes and lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdnas_core.cli.base import DEFAULT_DB, Db, Json, existing, prepare_libraries, say, show_result
from kdnas_core.cli.progress_bar import steps_bar
from kdnas_core.cli.students import Check, Fields, SourceName
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep import points, readings_at
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.names import source_named
from kdnas_core.runs.records import Sweep
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import SweepSpec, parse_sweep, with_settings

SHOWN = ("runtime", "batch_size", "sequence_length", "p50", "p95", "speedup", "clean", "device")


def latency(
    source: SourceName,
    db: Db = DEFAULT_DB,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", help="onnxruntime, onnxruntime-int8, torch or torch-cuda; may be given again."
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep/--no-sweep", help="Also by batch size and by sequence length.")
    ] = False,
    setting: Fields = None,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure a candidate's latency in several runtimes beside its teacher's, in the foreground."""
    how = parse_sweep(_fields(runtime, sweep, setting or []))
    _check_latency(existing(db), source, how)
    if check:
        return
    from kdnas_core.runs import worker

    with opened(db) as store:
        candidate = source_named(store, source).candidate.id
        row = store.sweep(store.create_sweep(how, candidate, Worker.this_process()))
        with steps_bar() as told:
            worker.measure(store, row, told)
        row, readings = store.sweep(row.id), taken_by(store, row)
        shown = {"candidate": candidate, "state": row.state, "readings": [_object(one) for one in readings]}
        show_result(shown, as_json, lambda: [_HEAD, *map(_line, readings)])
        if row.state == "failed":
            say(row.error or "It failed.")
            raise typer.Exit(1)


def taken_by(store: Store, sweep: Sweep) -> list[LatencyReading]:
    """Returns the newest readings of a candidate at the points of a sweep."""
    asked = points(sweep.spec, store.run(sweep.run).spec.latency)
    return readings_at(store.readings(sweep.candidate), asked)


def _fields(runtimes: list[str] | None, sweep: bool, settings: list[str]) -> dict[str, Any]:
    """The fields of a `SweepSpec`; by default, only the run's own batch size and sequence length."""
    fields: dict[str, Any] = {} if sweep else {"batch_sizes": [], "sequence_lengths": []}
    fields = with_settings(fields, settings)
    return fields if runtimes is None else {**fields, "runtimes": runtimes}


def _check_latency(db: Path, name: str, how: SweepSpec) -> None:
    with opened(db, read_only=True) as store:
        candidate = source_named(store, name).candidate
        prepare_libraries()
        from kdnas_core.runs.student_journals import check_latency

        note = check_latency(store, candidate, how)
    if note is not None:
        say(note)


def _object(reading: LatencyReading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in SHOWN}


_HEAD = f"{'runtime':<18} {'batch':>5} {'tokens':>6} {'p50 ms':>9} {'p95 ms':>9} {'speed-up':>8}"


def _line(reading: LatencyReading) -> str:
    figures = f"{reading.p50:9.3f} {reading.p95:9.3f} {reading.speedup:7.1f}x"
    where = f"{reading.runtime:<18} {reading.batch_size:>5} {reading.sequence_length:>6}"
    return f"{where} {figures}{'' if reading.clean else '  not clean: an upper bound'}"
