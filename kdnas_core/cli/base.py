"""Code shared by the commands: the application, the common options, and the output."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Job, RunState
from kdnas_core.runs.store import Store

OBEYS_WITHIN_S = 60  # a worker checks for requests at each step; loading and exporting take longest

app = typer.Typer(
    help="Choose and make small language models for a latency budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Db = Annotated[Path, typer.Option("--db", envvar="KDNAS_DB", help="The store of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="path.to.field=value, for example latency.budget_ms=5.")
]
DEFAULT_DB = Path("runs.db")


def existing(db: Path) -> Path:
    """Returns the path of a store that must exist.

    Raises:
        BadInput: there is no such file.
    """
    if not db.is_file():
        raise BadInput(f"There is no {db}; start a search first, or name another file with --db.")
    return db


def once_obeyed(store: Store, job: Job) -> RunState:
    """Waits up to a minute until a worker has obeyed a request, and returns the state of the work."""
    deadline = time.monotonic() + OBEYS_WITHIN_S
    while store.work(job).state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    return store.work(job).state


def show_result(shown: dict[str, Any], as_json: bool, lines: Callable[[], list[str]]) -> None:
    """Prints a result as one JSON object or as lines of text."""
    if as_json:
        print(json.dumps(_finite(shown), allow_nan=False))
    else:
        print("\n".join(lines()))


def _finite(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON cannot represent, by None."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str) -> None:
    """Prints a text on stderr."""
    print(text, file=sys.stderr)


def prepare_libraries() -> None:
    """Disables progress bars, telemetry and logs; must run before torch and transformers are imported.

    Waiting threads sleep soon: spinning threads are many times slower beside another busy process. In a
    container that may use fewer cores than the machine has, torch would start a thread for each of them.
    """
    from joblib import cpu_count  # heeds the limits of a container; takes a third of a second to import

    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if (usable := cpu_count()) < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for library in ("httpx", "httpx2", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.WARNING)
