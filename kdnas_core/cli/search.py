"""The command line. It exits with code 2 and one sentence on bad input, and with 130 on an interrupt."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from kdnas_core.cli import doctor, latency, students
from kdnas_core.cli.base import (
    DEFAULT_DB,
    Db,
    Json,
    Settings,
    app,
    existing,
    once_obeyed,
    prepare_libraries,
    say,
    show_result,
)
from kdnas_core.cli.export_lines import export_lines, news
from kdnas_core.cli.progress_bar import candidates_bar
from kdnas_core.errors import BadInput, Failure
from kdnas_core.package.export import export_student, serve_export
from kdnas_core.package.layout import parse_formats
from kdnas_core.runs.extending import extended
from kdnas_core.runs.jobs import LANES, Job, RunState, Worker
from kdnas_core.runs.picks import Pick, pick_within, picks
from kdnas_core.runs.proxies import FEWEST, Proxies, proxies_of, read_scored
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.runs.store import Store, check_path, opened
from kdnas_core.search.pareto import frontier
from kdnas_core.spec import RunSpec, parse_spec, parse_spec_json, quick_spec, with_settings

if TYPE_CHECKING:
    from kdnas_core.search.prepare import Prepared

__all__ = ["app", "main"]

INTERRUPTED = 130

RunId = Annotated[int, typer.Argument(help="Id of a run; `runs` lists them.")]
Spec = Annotated[str | None, typer.Option("--spec", help="A RunSpec as a JSON file; - reads stdin.")]
JobName = Annotated[str, typer.Argument(metavar="RUN-or-STUDENT", help="A run, as 3, or a student, as s3.")]


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
    prepare_libraries()
    from kdnas_core.search.prepare import prepare

    started = time.monotonic()
    check_path(db)
    prepared = prepare(chosen, lambda activity: say(f"{activity} ..."))
    with opened(db) as store:
        run = store.create_run(prepared.spec, Worker.this_process())
        _in_foreground(db, store, run, prepared, started, as_json)


@app.command()
def extend(
    run: RunId,
    db: Db = DEFAULT_DB,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="To add to those it has.")] = 3,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Go on with a search that has ended, with all that it knows: more episodes, another space or budget."""
    prepare_libraries()
    from kdnas_core.search.prepare import prepare

    started = time.monotonic()
    with opened(existing(db)) as store:
        spec = extended(store.run(run), episodes, setting or [])
        prepared = prepare(spec, lambda activity: say(f"{activity} ..."))
        store.extend(run, prepared.spec, Worker.this_process())
        _in_foreground(db, store, run, prepared, started, as_json)


def _in_foreground(
    db: Path, store: Store, number: int, prepared: Prepared, started: float, as_json: bool
) -> None:
    """Runs a search that this process has claimed, with a progress bar, and shows its result."""
    from kdnas_core.runs.worker import work_on

    run = store.run(number)
    say(f"run {number} in {db}: the teacher takes {prepared.teacher_latency.p50:.2f} ms")
    judged = sum(candidate.state != "proposed" for candidate in store.candidates(number))
    with candidates_bar(run.total, judged) as told:
        state = work_on(store, run, prepared, told)
    summary = _summary(store, number, time.monotonic() - started)
    show_result(summary, as_json, lambda: _summary_lines(store.run(number), store.candidates(number)))
    if state == "failed":
        say(store.run(number).error or "the run failed")
        raise typer.Exit(1)


@app.command()
def check(spec: Spec = None, setting: Settings = None) -> None:
    """Check a spec as `search` would before it writes anything."""
    chosen = _chosen_spec(spec, False, None, setting)
    prepare_libraries()
    from kdnas_core.search.prepare import prepare

    prepared = prepare(chosen, lambda activity: say(f"{activity} ..."))
    say(f"{len(prepared.space)} architectures; the teacher takes {prepared.teacher_latency.p50:.2f} ms")


@app.command()
def runs(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List runs, newest first."""
    with opened(db, read_only=True) as store:
        rows, unreadable = store.runs_and_unreadable()
        for sentence in unreadable:
            say(sentence)
        lines = [f"{run.id:>5}  {run.state:<12} {run.name:<24} episode {run.episode}" for run in rows]
        show_result({"runs": [_run_object(run) for run in rows]}, as_json, lambda: lines or ["No runs yet."])


@app.command()
def show(name: JobName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show one run with all its candidates, or one student with its scores."""
    job = Job.named(name)
    with opened(db, read_only=True) as store:
        if job.kind == "students":
            return students.show_student(store, store.student(job.id), as_json)
        row, candidates = store.run(job.id), store.candidates(job.id)
        shown = {
            "run": _run_object(row),
            "spec": row.spec.model_dump(),
            "candidates": [candidate.to_dict() for candidate in candidates],
        }
        show_result(shown, as_json, lambda: [_run_line(row), *map(_candidate_line, candidates)])


@app.command(name="pick")
def pick_(
    run: RunId,
    db: Db = DEFAULT_DB,
    budget_ms: Annotated[float | None, typer.Option("--budget-ms", help="At most so many ms.")] = None,
    speedup: Annotated[
        float | None, typer.Option("--speedup", help="Minimum speed-up over the teacher.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Pick a candidate of a run within a budget, or within each of its own, from what was measured."""
    given = parse_spec({"latency": {"budget_ms": budget_ms, "budget_speedup": speedup}}).latency
    with opened(db, read_only=True) as store:
        row, candidates = store.run(run), store.candidates(run)
        if budget_ms is None and speedup is None:
            found = picks(row, candidates)
            shown = {"picks": [each.to_dict() for each in found]}
            return show_result(shown, as_json, lambda: list(map(_pick_line, found)))
        chosen = pick_within(row, candidates, given)
        best, tied = chosen.best, [each.id for each in chosen.tied]
        line = "No candidate is within the budget." if best is None else _candidate_line(best) + _tied(tied)
        show_result({"candidate": best and best.to_dict(), "tied": tied}, as_json, lambda: [line])


@app.command()
def proxies(run: RunId, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show how well a run's yardstick, at each rung, ranks the final scores of its distilled students."""
    with opened(db, read_only=True) as store:
        store.run(run)  # refuses one that does not exist
        found = proxies_of(read_scored(store, run))
    if found is None:
        raise BadInput(
            f"Fewer than {FEWEST} students of run {run} were distilled in full and scored on the same tasks; "
            "distil and evaluate some first."
        )
    show_result(found.to_dict(), as_json, lambda: _proxy_lines(found))


def _proxy_lines(found: Proxies) -> list[str]:
    head = f"{len(found.students)} students, scored on {', '.join(found.tasks)}"
    lines = []
    for name, each in found.rankings.items():
        rank = "-" if each.spearman is None else f"{each.spearman:.2f}"
        lines.append(f"{name:<12} Spearman {rank:>5}   pairs of equal latency {each.right} of {each.pairs}")
    return [head, *lines]


for command in (
    students.distill,
    students.evaluate,
    students.students,
    latency.latency,
    doctor.doctor,
    doctor.backup,
):
    app.command()(command)
app.command(name="import")(students.import_)


@app.command()
def export(
    source: students.SourceName,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    db: Db = DEFAULT_DB,
    formats: Annotated[
        str, typer.Option("--format", help="A comma list of hf (always), onnx, and zip: DIR.zip beside DIR.")
    ] = "hf",
    as_json: Json = False,
) -> None:
    """Write a candidate or a student as a folder that stock libraries load, checked by loading it."""
    wanted = parse_formats(formats)
    with opened(db, read_only=True) as store:
        done = export_student(store, source, folder, wanted, news())
    show_result(done.to_dict(), as_json, lambda: export_lines(done))


@app.command()
def worker(
    db: Db = DEFAULT_DB,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing is queued.")] = False,
    lane: Annotated[
        str, typer.Option("--lane", help="long, or checks or exports, which pages ask for.")
    ] = "long",
    engine: Annotated[str, typer.Option("--engine", help="local: in this process.")] = "local",
) -> None:
    """Serve what is queued, one after another, until interrupted: runs, distillations, scorings, sweeps."""
    if lane not in LANES:
        raise BadInput(f"The lane {lane} is not known; write --lane long, checks or exports.")
    if engine != "local":
        raise BadInput(f"The engine {engine} is not known; write --engine local.")
    prepare_libraries()
    from kdnas_core.runs.worker import serve

    serve(db, serve_export, lane=lane, until_idle=until_idle)


@app.command(hidden=True)
def slot() -> None:
    """Judge the candidates that a worker names on stdin; workers start this."""
    logging.getLogger().setLevel(logging.WARNING)
    prepare_libraries()
    from kdnas_core.runs.slots import serve_slot

    serve_slot()


@app.command()
def pause(name: JobName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Pause a run or a student; what is finished is kept, and `resume` goes on."""
    _ask(db, name, "pause", as_json)


@app.command()
def stop(name: JobName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Stop a run or a student; what is finished is kept, and `resume` would go on with it."""
    _ask(db, name, "stop", as_json)


def _ask(db: Path, name: str, request: Literal["pause", "stop"], as_json: bool) -> None:
    job = Job.named(name)
    with opened(existing(db)) as store:
        store.ask(job, request)
        _show_state(store, job, once_obeyed(store, job), as_json)


@app.command()
def resume(name: JobName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Go on with a run or a student where it stopped; a worker is started in the background where none is."""
    from kdnas_core.runs.launch import ensure_worker

    job = Job.named(name)
    with opened(existing(db)) as store:
        state = store.resume(job)
        ensure_worker(db)
        _show_state(store, job, state, as_json)


@app.command()
def delete(name: JobName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Delete a run with all that was made in it, or a student with its scores; and their files."""
    job = Job.named(name)
    with opened(existing(db)) as store:
        store.delete(job)
    show_result(_state_object(job, "deleted"), as_json, lambda: [f"{job.title.lower()}: deleted"])


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # Typer catches KeyboardInterrupt and prints nothing
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


def _pick_line(found: Pick) -> str:
    limit = found.limit
    if found.best is None:
        return f"{limit:>9}  no candidate is within the budget"
    ahead = ""
    if found.next is not None and found.margin is not None:
        spread = "" if found.margin_se is None else f" ± {found.margin_se:.4f}"
        relation = "ahead of" if found.margin >= 0 else "behind the slower"
        ahead = f"  {relation} {found.next.id} by {abs(found.margin):.4f}{spread}"
    if found.chance_unseen is not None:
        ahead += f"  {found.chance_unseen:.0%} that an unseen one beats the best"
    return (
        f"{limit:>9}  {_candidate_line(found.best).strip()}{ahead}{_tied([each.id for each in found.tied])}"
    )


def _tied(candidates: list[int]) -> str:
    return f"  tied with {', '.join(map(str, candidates))}" if candidates else ""


def _summary(store: Store, run: int, seconds: float) -> dict[str, Any]:
    row, candidates = store.run(run), store.candidates(run)
    return {
        "run": run,
        "state": row.state,
        "candidates": len(candidates),
        "over_budget": sum(candidate.state == "over_budget" for candidate in candidates),
        "pruned": sum(candidate.state == "pruned" for candidate in candidates),
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
        "outlook": run.outlook and asdict(run.outlook),
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
    elif candidate.estimated_ms is not None:
        line += f" {candidate.estimated_ms:8.2f} ms estimated, not measured"
    if candidate.stopped is not None:
        line += f"  {candidate.stopped}"
    if candidate.proxy_score is not None:
        line += f"  score {candidate.proxy_score:.4f}"
    return line if candidate.loss is None else f"{line}  loss {candidate.loss:.4f}"


def _show_state(store: Store, job: Job, state: RunState, as_json: bool) -> None:
    def lines() -> list[str]:
        row = store.work(job)
        return [_run_line(row) if isinstance(row, Run) else f"{job.title.lower()}: {row.state}"]

    show_result(_state_object(job, state), as_json, lines)


def _state_object(job: Job, state: str) -> dict[str, Any]:
    return (
        {"run": job.id, "state": state} if job.kind == "runs" else {"student": f"s{job.id}", "state": state}
    )


def _end(text: str, code: int) -> NoReturn:
    say(text)
    sys.exit(code)
