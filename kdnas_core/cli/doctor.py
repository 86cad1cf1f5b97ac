"""The commands on machine and store: what this machine has and what is wrong, and a copy of the store."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kdnas_core.cli.base import DEFAULT_DB, Db, Json, prepare_libraries, show_result
from kdnas_core.errors import BadInput, Failure
from kdnas_core.files import cache_folder
from kdnas_core.hardware import chosen_device, device_name, runtimes
from kdnas_core.runs.store.backup import backup as copy_store
from kdnas_core.runs.store.base import files_of

LIBRARIES = ("torch", "transformers", "onnxruntime", "streamlit", "plotly", "sqlite-utils", "datasets")
SPARE_BYTES = 2 * 10**9  # a quick search with its weights and teacher outputs takes a few hundred MB


def doctor(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Say what this machine has, where things will run, and what is wrong; exit code 1 if anything is."""
    prepare_libraries()
    checks = [_checked(name, check) for name, check in _checks(db)]
    show_result({"checks": checks}, as_json, lambda: [_line(check) for check in checks])
    if not all(check["ok"] for check in checks):
        raise typer.Exit(1)


def backup(
    file: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Copy the store as it is at one moment, also while a search writes to it; weights are not in it."""
    copy_store(db, file)
    told = f"{file}: all runs and scores of {db}; the weights of students stay in {files_of(db)}"
    show_result({"path": str(file.resolve())}, as_json, lambda: [told])


def _checks(db: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "versions", _versions
    yield "device", _device
    yield "latency", lambda: f"measured in {', '.join(runtimes())}, on {device_name()}"
    yield "disk of the store", lambda: _free(db.resolve().parent)
    yield "disk of the cache", lambda: _free(cache_folder())
    yield "store", lambda: _store(db)
    yield "teacher", _teacher


def _checked(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "says": check()}
    except (BadInput, Failure, OSError, ImportError) as error:
        return {"name": name, "ok": False, "says": str(error)}


def _line(check: dict[str, Any]) -> str:
    return f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['says']}"


def _versions() -> str:
    named = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *named])


def _device() -> str:
    import torch

    device = chosen_device("auto")
    threads = f", by {torch.get_num_threads()} threads" if device == "cpu" else ""
    return f"by device=auto, teachers and students compute on {device}{threads}"


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        raise Failure(f"{folder} cannot be written; name another place.")
    if free < SPARE_BYTES:
        raise Failure(f"{folder} has {free / 1e9:.1f} GB free; make room, or name another disk.")
    return f"{folder} has {free / 1e9:.0f} GB free"


def _store(db: Path) -> str:
    from kdnas_core.runs.store import opened

    if not db.is_file():
        return f"{db} is made at the first search"
    with opened(db, read_only=True) as store:
        if problem := store.damage():
            raise Failure(f"{db} is damaged ({problem}); go back to a copy of it.")
        return f"{db} is whole, with {len(store.runs())} runs"


def _teacher() -> str:
    from kdnas_core.models.teacher import load_teacher

    teacher = load_teacher("packaged")
    return f"the packaged one loads, {teacher.architecture.key}, and has the checksums that it should"
