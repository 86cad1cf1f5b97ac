"""From the choices on a form to a student or a scoring that a worker serves; nothing unchecked is queued."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdnas_core.data.corpus import check_corpus
from kdnas_core.data.hub import HUB, parse_hub
from kdnas_core.data.task_files import find_folder
from kdnas_core.data.tasks import PACKAGED
from kdnas_core.errors import BadInput
from kdnas_core.runs.launch import check_distillation, check_evaluation, ensure_worker
from kdnas_core.runs.names import new_scoring, new_student, source_named
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, parse_distil, parse_score

Tell = Callable[[str], None]


def distil(db: Path, sources: Sequence[str], fields: dict[str, Any], tell: Tell) -> str:
    """Checks and queues the distillation of candidates, as in "12", or of a student for a task, as in "s3".

    Args:
        db: the store.
        sources: in the order in which they are to be distilled.
        fields: of a `DistilSpec`, the same for all.
        tell: told each step.

    Returns:
        A sentence about what was queued.

    Raises:
        BadInput: something does not fit; nothing was queued.
        Failure: the check did not come to an end.
    """
    how = parse_distil({name: value for name, value in fields.items() if value not in (None, "")})
    check_sources(how)
    tell("Loading the teacher, and what is to be read …")
    check_distillation(db, sources[0], how)  # what it reads is the same for the others
    with opened(db) as store:
        names = [f"s{new_student(store, source_named(store, source), how)}" for source in sources]
    ensure_worker(db)
    return f"Student {names[0]} is queued." if len(names) == 1 else f"Students {', '.join(names)} are queued."


def score(db: Path, source: str, fields: dict[str, Any], tell: Tell) -> str:
    """Checks and queues the scoring of a candidate or a student; as `distil`."""
    how = parse_score({name: value for name, value in fields.items() if value not in (None, "")})
    for task in how.tasks:
        check_task(task)
    tell("Reading the tasks …")
    check_evaluation(db, source, how)
    with opened(db) as store:
        scoring = new_scoring(store, source_named(store, source), how)
    ensure_worker(db)
    return f"Scoring {scoring} is queued."


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
