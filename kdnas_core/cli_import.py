"""The command that brings an exported student back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdnas_core.cli_base import DEFAULT_DB, Db, Json, say, show_result
from kdnas_core.errors import BadInput
from kdnas_core.importing.student import import_student

Export = Annotated[Path, typer.Argument(help="The folder or the zip of an exported student.")]


def import_(path: Export, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Bring an exported student back, as a finished run: checked, with its figures, to go on with."""
    if path.suffix.lower() == ".json":
        raise BadInput(f"{path} is a search and no student; start it with `search --spec {path}`.")
    done = import_student(db, path, str(path), lambda activity: say(f"{activity} ..."))
    name = None if done.student is None else f"s{done.student}"
    shown = {
        "run": done.run,
        "candidate": done.candidate,
        "student": name,
        "path": str(done.path),
        "sha256": done.sha256,
    }
    title = f"candidate {done.candidate}" if name is None else f"student {name}"
    show_result(shown, as_json, lambda: [f"run {done.run}: {title}, sha256 {done.sha256}", f"  {done.path}"])
