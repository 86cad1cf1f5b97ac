"""The file beside a task-specific student that says which task it is for, and so has a head for."""

from __future__ import annotations

import json
from pathlib import Path

TASK_FILE = "task.json"


def write_task(folder: Path, source: str, fingerprint: str) -> None:
    """Says in a student's folder which task it is for.

    Args:
        folder: of its weights.
        source: the task, as a user names it.
        fingerprint: of the task's rows.
    """
    (folder / TASK_FILE).write_text(json.dumps({"task": source, "fingerprint": fingerprint}))


def fingerprint_of_task(folder: Path) -> str | None:
    """The fingerprint of the task that a student is for; None where none is named."""
    try:
        fields = json.loads((folder / TASK_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    found = fields.get("fingerprint") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else None
