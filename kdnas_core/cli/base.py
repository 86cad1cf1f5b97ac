"""What the commands share: the application, their usual options, and how they speak."""

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

OBEYS_WITHIN_S = 60  # a worker looks for requests at each step; loading and exporting a model take longest

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
    """The store, which a command that changes one does not make.

    Raises:
        BadInput: there is none.
    """
    if not db.is_file():
        raise BadInput(f"There is no {db}; start a search first, or name another file with --db.")
    return db


def once_obeyed(store: Store, job: Job) -> RunState:
    """The state of some work after its worker has seen what was asked, or as it is after a minute."""
    deadline = time.monotonic() + OBEYS_WITHIN_S
    while store.work(job).state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    return store.work(job).state


def show_result(shown: dict[str, Any], as_json: bool, lines: Callable[[], list[str]]) -> None:
    """Prints the one JSON object, or lines for people."""
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


def say(text: str) -> None:
    """Says on stderr what is done."""
    print(text, file=sys.stderr)


def prepare_libraries() -> None:
    """Before torch and transformers are imported: no bars among ours, no telephone calls home, quiet threads.

    Threads soon sleep while they wait: spinning, they are many times slower beside another busy process.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for library in ("httpx", "httpx2", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.WARNING)
