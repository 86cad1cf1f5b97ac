"""The command line. Bad input ends it with exit code 2 and one sentence, an interrupt with 130."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from kdnas_core.errors import BadInput, Failure
from kdnas_core.progress_bar import candidates_bar
from kdnas_core.runs.rows import Candidate, Run, RunState
from kdnas_core.runs.store import Store, check_path, opened
from kdnas_core.search.pareto import frontier, pick
from kdnas_core.search.reward import within_budget
from kdnas_core.spec import LatencySpec, RunSpec, parse_spec, parse_spec_json, quick_spec, with_settings

INTERRUPTED = 130
OBEYS_WITHIN_S = 60  # a worker looks for requests at each step; loading and exporting a model take longest

app = typer.Typer(
    help="Choose and make small language models for a latency budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Db = Annotated[Path, typer.Option("--db", envvar="KDNAS_DB", help="The store of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
RunId = Annotated[int, typer.Argument(help="Id of a run; `runs` lists them.")]
Spec = Annotated[str | None, typer.Option("--spec", help="A RunSpec as a JSON file; - reads stdin.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="path.to.field=value, for example latency.budget_ms=5.")
]
DEFAULT_DB = Path("runs.db")


@app.command()
def search(
    db: Db = DEFAULT_DB,
    spec: Spec = None,
    quick: Annotated[bool, typer.Option("--quick", help="The small search of a first start.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the search.")] = None,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Run a search in the foreground, with a progress bar. Ctrl-C interrupts it; `resume` goes on."""
    chosen = _chosen_spec(spec, quick, seed, setting)
    _prepare_libraries()
    from kdnas_core.runs.rows import Worker
    from kdnas_core.runs.worker import work_on
    from kdnas_core.search.prepare import prepare

    started = time.monotonic()
    check_path(db)
    prepared = prepare(chosen, lambda activity: _say(f"{activity} ..."))
    with opened(db) as store:
        run = store.run(store.create_run(prepared.spec, Worker.this_process()))
        _say(f"run {run.id} in {db}: the teacher takes {prepared.teacher_latency.p50:.2f} ms")
        with candidates_bar(run.total) as told:
            state = work_on(store, run, prepared, told)
        summary = _summary(store, run.id, time.monotonic() - started)
        _show(summary, as_json, lambda: _summary_lines(store.run(run.id), store.candidates(run.id)))
        if state == "failed":
            _say(store.run(run.id).error or "the run failed")
            raise typer.Exit(1)


@app.command()
def check(spec: Spec = None, setting: Settings = None) -> None:
    """Check a spec as `search` would before it writes anything."""
    chosen = _chosen_spec(spec, False, None, setting)
    _prepare_libraries()
    from kdnas_core.search.prepare import prepare

    prepared = prepare(chosen, lambda activity: _say(f"{activity} ..."))
    _say(f"{len(prepared.space)} architectures; the teacher takes {prepared.teacher_latency.p50:.2f} ms")


@app.command()
def runs(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List runs, newest first."""
    with opened(db, read_only=True) as store:
        rows = store.runs()
        lines = [f"{run.id:>5}  {run.state:<12} {run.name:<24} episode {run.episode}" for run in rows]
        _show({"runs": [_run_object(run) for run in rows]}, as_json, lambda: lines or ["No runs yet."])


@app.command()
def show(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show one run with all its candidates."""
    with opened(db, read_only=True) as store:
        row, candidates = store.run(run), store.candidates(run)
        shown = {
            "run": _run_object(row),
            "spec": row.spec.model_dump(),
            "candidates": [candidate.to_dict() for candidate in candidates],
        }
        _show(shown, as_json, lambda: [_run_line(row), *map(_candidate_line, candidates)])


@app.command(name="pick")
def pick_(
    run: RunId,
    db: Db = DEFAULT_DB,
    budget_ms: Annotated[float | None, typer.Option("--budget-ms", help="At most so many ms.")] = None,
    speedup: Annotated[float | None, typer.Option("--speedup", help="At least so many times faster.")] = None,
    as_json: Json = False,
) -> None:
    """Pick the best candidate of a run within a budget, from what was measured."""
    budget = parse_spec({"latency": {"budget_ms": budget_ms, "budget_speedup": speedup}}).latency
    if budget_ms is None and speedup is None:
        raise BadInput("Give a budget: --budget-ms or --speedup.")
    with opened(db, read_only=True) as store:
        best = _best_within(store.run(run), store.candidates(run), budget)
        line = "No candidate is within the budget." if best is None else _candidate_line(best)
        _show({"candidate": best and best.to_dict()}, as_json, lambda: [line])


@app.command()
def export(
    candidate: Annotated[int, typer.Argument(help="Id of a candidate; `show` lists a run's.")],
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    db: Db = DEFAULT_DB,
    formats: Annotated[str, typer.Option("--format", help="hf: a folder that transformers loads.")] = "hf",
    as_json: Json = False,
) -> None:
    """Write a candidate as a folder that stock transformers loads, verified by loading it."""
    from kdnas_core.export import export_hf

    if formats != "hf":
        raise BadInput(f"The format {formats} is not known; write --format hf.")
    with opened(db, read_only=True) as store:
        done = export_hf(store, candidate, folder)
    shown = {"path": str(done.path), "files": done.files, "sha256": done.sha256, "verified": done.verified}
    _show(shown, as_json, lambda: [f"{done.path}: loaded by stock transformers; sha256 {done.sha256}"])


@app.command()
def worker(
    db: Db = DEFAULT_DB,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing is queued.")] = False,
    engine: Annotated[str, typer.Option("--engine", help="local: in this process.")] = "local",
) -> None:
    """Serve queued runs, one after another, until interrupted."""
    if engine != "local":
        raise BadInput(f"The engine {engine} is not known; write --engine local.")
    _prepare_libraries()
    from kdnas_core.runs.worker import serve

    serve(db, until_idle=until_idle)


@app.command()
def pause(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Pause a run; what was judged is kept, the candidate in hand is judged anew after `resume`."""
    with opened(_existing(db)) as store:
        store.ask(run, "pause")
        _show_state(store, run, _once_obeyed(store, run), as_json)


@app.command()
def stop(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Stop a run; what was judged is kept, and `resume` would go on with it."""
    with opened(_existing(db)) as store:
        store.ask(run, "stop")
        _show_state(store, run, _once_obeyed(store, run), as_json)


@app.command()
def resume(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Go on with a run where it stopped; a worker is started in the background if none serves the store."""
    from kdnas_core.runs.launch import ensure_worker

    with opened(_existing(db)) as store:
        state = store.resume(run)
        ensure_worker(db)
        _show_state(store, run, state, as_json)


@app.command()
def delete(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Delete a run with its candidates and their files."""
    with opened(_existing(db)) as store:
        store.delete_run(run)
    _show({"run": run, "state": "deleted"}, as_json, lambda: [f"run {run}: deleted"])


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # Typer catches KeyboardInterrupt itself and says nothing
            raise KeyboardInterrupt
        sys.exit(code)
    except BadInput as error:
        _end(str(error), 2)
    except Failure as error:
        _end(str(error), 1)
    except typer.TyperException as error:
        _end(f"{error.format_message() or 'Name a command.'} See `python -m kdnas_core --help`.", 2)
    except (KeyboardInterrupt, typer.Abort):
        _end("Interrupted.", INTERRUPTED)


# --- inside -----------------------------------------------------------------------------------------------


def _chosen_spec(path: str | None, quick: bool, seed: int | None, settings: list[str] | None) -> RunSpec:
    if quick and path:
        raise BadInput("Give --quick or --spec, not both.")
    base = quick_spec() if quick else _read_spec(path) if path else RunSpec()
    fields = with_settings(base.model_dump(exclude_none=True), settings or [])
    return parse_spec(fields if seed is None else {**fields, "seed": seed})


def _read_spec(path: str) -> RunSpec:
    try:
        return parse_spec_json(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInput(f"The spec {path} cannot be read ({reason}); name a JSON file.") from None


def _existing(db: Path) -> Path:
    if not db.is_file():
        raise BadInput(f"There is no {db}; start a search first, or name another file with --db.")
    return db


def _once_obeyed(store: Store, run: int) -> RunState:
    """The run's state, after its worker has seen what was asked, or as it is after a minute."""
    deadline = time.monotonic() + OBEYS_WITHIN_S
    while store.run(run).state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    return store.run(run).state


def _best_within(run: Run, candidates: list[Candidate], budget: LatencySpec) -> Candidate | None:
    within = [
        candidate
        for candidate in candidates
        if candidate.state == "done"
        and candidate.latency
        and run.teacher
        and within_budget(candidate.latency, budget, run.teacher.latency.p50)
    ]
    index = pick([candidate.point for candidate in within], float("inf"))
    return None if index is None else within[index]


def _summary(store: Store, run: int, seconds: float) -> dict[str, Any]:
    row, candidates = store.run(run), store.candidates(run)
    return {
        "run": run,
        "state": row.state,
        "candidates": len(candidates),
        "over_budget": sum(candidate.state == "over_budget" for candidate in candidates),
        "failed": sum(candidate.state == "failed" for candidate in candidates),
        "seconds": round(seconds, 1),
        "teacher_latency_ms": row.teacher and row.teacher.latency.p50,
        "frontier": [candidate.to_dict() for candidate in _frontier(candidates)],
    }


def _run_object(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "episode": run.episode,
        "episodes": run.spec.search.episodes,
        "created_at": run.created_at,
        "seconds": round(run.seconds, 1),
        "activity": run.activity,
        "error": run.error,
        "teacher_latency_ms": run.teacher and run.teacher.latency.p50,
    }


def _summary_lines(run: Run, candidates: list[Candidate]) -> list[str]:
    return [_run_line(run), "Pareto frontier:", *map(_candidate_line, _frontier(candidates))]


def _frontier(candidates: list[Candidate]) -> list[Candidate]:
    done = [candidate for candidate in candidates if candidate.state == "done"]
    return [done[index] for index in frontier([candidate.point for candidate in done])]


def _run_line(run: Run) -> str:
    return f"run {run.id} ({run.name}): {run.state}, episode {run.episode} of {run.spec.search.episodes}"


def _candidate_line(candidate: Candidate) -> str:
    line = f"{candidate.id:>5}  {candidate.state:<12} {candidate.architecture.key:<28}"
    if candidate.latency:
        line += f" {candidate.latency.p50:8.2f} ms {candidate.latency.speedup:6.1f}x"
    return line if candidate.loss is None else f"{line}  loss {candidate.loss:.4f}"


def _show_state(store: Store, run: int, state: RunState, as_json: bool) -> None:
    _show({"run": run, "state": state}, as_json, lambda: [_run_line(store.run(run))])


def _show(shown: dict[str, Any], as_json: bool, lines: Callable[[], list[str]]) -> None:
    if as_json:
        print(json.dumps(_finite(shown), allow_nan=False))
    else:
        print("\n".join(lines()))


def _finite(value: Any) -> Any:
    """The value with null for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _end(text: str, code: int) -> NoReturn:
    _say(text)
    sys.exit(code)


def _prepare_libraries() -> None:
    """Before torch and transformers are imported: no bars among ours, no telephone calls home, and threads
    that soon sleep while they wait (spinning, they are many times slower beside another busy process)."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for library in ("httpx", "httpx2", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.WARNING)
