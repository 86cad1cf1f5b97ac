"""From the choices on a form to work that a worker serves; nothing unchecked is queued."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdnas_core.data.corpus import check_corpus
from kdnas_core.data.hub import HUB, parse_hub
from kdnas_core.data.task_files import find_folder
from kdnas_core.data.tasks import PACKAGED
from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.jobs import ACTIVE, Kind
from kdnas_core.runs.launch import ensure_worker, is_served
from kdnas_core.runs.records import Asked
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, parse_distil, parse_score, parse_sweep

Tell = Callable[[str], None]

LOOK_EVERY_S = 0.15


def ask(db: Path, wanted: Kind, spec: Asked, tell: Tell, sources: Sequence[str] = ()) -> tuple[int, ...]:
    """Has a worker check what is asked for and queue it, and waits until it has.

    Who goes away meanwhile gets what was asked for all the same.

    Args:
        db: the store.
        wanted: the kind of work.
        spec: of that work.
        tell: told several times a second what is being done; may raise, which ends the wait.
        sources: the candidates, as in "12", and students, as in "s3", that it is of.

    Returns:
        The ids of what was queued.

    Raises:
        BadInput: it was refused; nothing was queued.
        Failure: the check did not come to an end.
    """
    tell("Checking …")
    with opened(db) as store:
        check = store.create_check(wanted, spec, sources)
        ensure_worker(db, "checks")
        while (row := store.check(check)).state in ACTIVE:
            tell(f"{row.activity[:1].upper()}{row.activity[1:] or 'Checking'} …")
            if row.state == "queued" and not is_served(db, "checks") and store.check(check).state == "queued":
                store.delete(row.job)
                raise Failure("No worker could be started; see worker.log beside the store.")
            time.sleep(LOOK_EVERY_S)
    if row.state == "failed":
        raise BadInput(row.error or "The check failed and left no reason.")
    if row.state != "finished":
        raise Failure(f"The check was {row.state}; ask again.")
    return row.made


def distil(db: Path, sources: Sequence[str], fields: dict[str, Any], tell: Tell) -> str:
    """Checks and queues the distillation of candidates, as in "12", or of a student for a task, as in "s3".

    Args:
        db: the store.
        sources: in the order in which they are to be distilled.
        fields: of a `DistilSpec`, the same for all.
        tell: as for `ask`.

    Returns:
        A sentence about what was queued.

    Raises:
        BadInput: something does not fit; nothing was queued.
        Failure: the check did not come to an end.
    """
    how = parse_distil({name: value for name, value in fields.items() if value not in (None, "")})
    check_sources(how)
    names = [f"s{student}" for student in ask(db, "students", how, tell, sources)]
    return f"Student {names[0]} is queued." if len(names) == 1 else f"Students {', '.join(names)} are queued."


def score(db: Path, source: str, fields: dict[str, Any], tell: Tell) -> str:
    """Checks and queues the scoring of a candidate or a student; as `distil`."""
    how = parse_score({name: value for name, value in fields.items() if value not in (None, "")})
    for task in how.tasks:
        check_task(task)
    (scoring,) = ask(db, "scorings", how, tell, [source])
    return f"Scoring {scoring} is queued."


def sweep(db: Path, candidate: int, fields: dict[str, Any], tell: Tell) -> str:
    """Checks and queues a sweep of a candidate's latencies; as `distil`."""
    (queued,) = ask(db, "sweeps", parse_sweep(fields), tell, [str(candidate)])
    return f"Sweep {queued} is queued."


def tasks_of(text: str) -> list[str]:
    """The tasks that are listed in a field, separated by commas or lines; each once.

    Raises:
        BadInput: there is none.
    """
    tasks = [part.strip() for part in re.split(r"[,\n]", text)]
    if not any(tasks):
        raise BadInput(
            "Name at least one task: `packaged`, a folder, or a data set such as hub:nyu-mll/glue:sst2."
        )
    return list(dict.fromkeys(filter(None, tasks)))


def check_sources(how: DistilSpec) -> None:
    """Refuses at once a corpus, task or file of word vectors that cannot be one.

    Raises:
        BadInput: says which.
    """
    if how.corpus is not None:
        check_corpus(how.corpus)
    if how.task is not None:
        check_task(how.task)
    if how.glove is not None and not Path(how.glove).expanduser().is_file():
        raise BadInput(f"There is no file {how.glove!r} of word vectors; name one in GloVe's text format.")


def check_task(task: str) -> None:
    """Refuses at once, without asking a network, what cannot be a task.

    Raises:
        BadInput: says why.
    """
    if task.startswith(HUB):
        parse_hub(task)
    elif task != PACKAGED:
        find_folder(task)
