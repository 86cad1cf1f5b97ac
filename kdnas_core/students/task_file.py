"""The file in a task-specific student's folder that names its task."""

from __future__ import annotations

import json
from pathlib import Path

TASK_FILE = "task.json"


def write_task(folder: Path, source: str, fingerprint: str) -> None:
    """Writes the task of a student to its folder.

    Args:
        folder: of its weights.
        source: of the task, as the user named it.
        fingerprint: of the task's rows.
    """
    (folder / TASK_FILE).write_text(json.dumps({"task": source, "fingerprint": fingerprint}))


def fingerprint_of_task(folder: Path) -> str | None:
    """Returns the fingerprint of a student's task; None if it has none."""
    try:
        fields = json.loads((folder / TASK_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    fingerprint = fields.get("fingerprint") if isinstance(fields, dict) else None
    return fingerprint if isinstance(fingerprint, str) else None
