"""Submits the choices of a form as work; it is checked before it is queued."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdnas_core.data.corpus import check_corpus
from kdnas_core.data.hub import HUB, parse_hub
from kdnas_core.data.retrieval import is_retrieval
from kdnas_core.data.task_files import find_folder
from kdnas_core.data.tasks import PACKAGED, check_is_learnt
from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.jobs import ACTIVE, Job, Kind
from kdnas_core.runs.launch import ensure_worker, is_served
from kdnas_core.runs.records import Asked, Check
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec, parse_distil, parse_score, parse_sweep

Tell = Callable[[str], None]

LOOK_EVERY_S = 0.15


def submit(db: Path, wanted: Kind, spec: Asked, sources: Sequence[str] = ()) -> int:
    """Queues the check of a request, and returns its id at once; `outcome` has it served.

    Args:
        db: the store.
        wanted: the kind of the requested work.
        spec: of that work.
        sources: the candidates, as in "12", and students, as in "s3", to work on.
    """
    with opened(db) as store:
        return store.create_check(wanted, spec, sources)


def outcome(db: Path, check: int, tell: Tell) -> Check:
    """Starts a worker for a check, if none serves it, and waits until it has queued its work.

    Args:
        db: the store.
        check: its id.
        tell: called with the activity several times a second; may raise, which ends only the wait.

    Raises:
        BadInput: the request is refused; nothing was queued.
        Failure: the check could not run, ended early, or was cancelled.
    """
    with opened(db) as store:
        while not (row := store.check(check)).made:
            if row.request == "stop" or row.state == "stopped":
                raise Failure("It was cancelled.")
            if row.state == "failed":
                raise BadInput(row.error or "The check failed and left no reason.")
            if row.state not in ACTIVE:
                raise Failure(f"The check was {row.state}; ask again.")
            tell(f"{row.activity[:1].upper()}{row.activity[1:] or 'Checking'} …")
            if row.state == "queued" and not is_served(db, "checks"):
                _serve(db, store, row)
            time.sleep(LOOK_EVERY_S)
    ensure_worker(db)
    return row


def _serve(db: Path, store: Store, check: Check) -> None:
    """Starts a worker for a check; stops the check if none can be started."""
    ensure_worker(db, "checks")
    if store.check(check.id).state == "queued" and not is_served(db, "checks"):
        store.ask(check.job, "stop")
        raise Failure("No worker could be started; see worker.log beside the store.")


def cancel(db: Path, check: int) -> None:
    """Cancels a check, unless it is over."""
    with opened(db) as store, suppress(BadInput):  # the check is over
        store.ask(Job("checks", check), "stop")


def queued(check: Check) -> str:
    """Returns a sentence on the work that a check has queued."""
    names = [Job(check.wanted, made).title for made in check.made]
    if len(names) == 1:
        return f"{names[0]} is queued."
    numbers = ", ".join(name.split()[1] for name in names)
    return f"{names[0].split()[0]}s {numbers} are queued."


def distil(db: Path, sources: Sequence[str], fields: dict[str, Any]) -> int:
    """Submits the distillation of candidates, as in "12", or of a student for a task, as in "s3".

    Args:
        db: the store.
        sources: in the order of their distillation.
        fields: of a `DistilSpec`, the same for all.

    Returns:
        The id of the check.

    Raises:
        BadInput: a field cannot be used; nothing was queued.
    """
    how = parse_distil({name: value for name, value in fields.items() if value not in (None, "")})
    check_sources(how)
    return submit(db, "students", how, sources)


def score(db: Path, source: str, fields: dict[str, Any]) -> int:
    """Submits the scoring of a candidate or a student; as `distil`."""
    how = parse_score({name: value for name, value in fields.items() if value not in (None, "")})
    for task in how.tasks:
        if not is_retrieval(task):
            check_task(task)
    return submit(db, "scorings", how, [source])


def sweep(db: Path, candidate: int, fields: dict[str, Any]) -> int:
    """Submits a sweep of a candidate's latencies; as `distil`."""
    return submit(db, "sweeps", parse_sweep(fields), [str(candidate)])


def tasks_of(text: str) -> list[str]:
    """Parses a list of tasks, separated by commas or lines, without duplicates.

    Raises:
        BadInput: the list is empty.
    """
    tasks = [part.strip() for part in re.split(r"[,\n]", text)]
    if not any(tasks):
        raise BadInput(
            "Name at least one task: `packaged`, a folder, or a data set such as hub:nyu-mll/glue:sst2."
        )
    return list(dict.fromkeys(filter(None, tasks)))


def check_sources(how: DistilSpec) -> None:
    """Checks the names of corpus, task and file of word vectors, without a network.

    Raises:
        BadInput: one cannot be used; says which.
    """
    if how.corpus is not None:
        check_corpus(how.corpus)
    if how.task is not None:
        check_task(how.task)
    if how.glove is not None and not Path(how.glove).expanduser().is_file():
        raise BadInput(f"There is no file {how.glove!r} of word vectors; name one in GloVe's text format.")


def check_task(task: str) -> None:
    """Checks the name of a task, without a network.

    Raises:
        BadInput: it cannot be a task; says why.
    """
    check_is_learnt(task)
    if task.startswith(HUB):
        parse_hub(task)
    elif task != PACKAGED:
        find_folder(task)
