"""An export as it is read back from its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdnas_core.export.checks import Checks
from kdnas_core.export.sums import WEIGHTS, files_of, read_sums
from kdnas_core.export.target import archive_of

RECORD = "kdnas.json"


@dataclass(frozen=True)
class Exported:
    """An exported folder that was checked.

    Attributes:
        path: the folder.
        files: its files, by their names relative to it.
        checksums: SHA-256 of each but of the list of them.
        checks: what was checked.
        zip: the archive beside it, where one was asked for.
    """

    path: Path
    files: list[str]
    checksums: dict[str, str]
    checks: Checks
    zip: Path | None = None

    @property
    def sha256(self) -> str:
        """Of its model.safetensors."""
        return self.checksums[WEIGHTS]

    @property
    def has_vectors(self) -> bool:
        """Whether sentence-transformers loads it."""
        return "modules.json" in self.files

    @property
    def has_onnx(self) -> bool:
        """Whether it has ONNX files."""
        return self.checks.onnx is not None

    def to_dict(self) -> dict[str, Any]:
        """The export object of the command line's `--json`."""
        checks = self.checks
        latencies = {
            runtime: {"p50": reading.p50, "p95": reading.p95, "speedup": reading.speedup}
            for runtime, reading in checks.latencies.items()
        }
        return {
            "path": str(self.path),
            "files": self.files,
            "sha256": self.sha256,
            "verified": True,  # nothing is left of what was not
            "checksums": self.checksums,
            "onnx": None if checks.onnx is None else asdict(checks.onnx),
            "latency_ms": latencies or None,
            "zip": None if self.zip is None else str(self.zip),
            "notes": list(checks.notes),
        }


def read_export(folder: Path) -> Exported:
    """Reads an export that this product made.

    Raises:
        OSError: there is none.
        ValueError: it is not whole, or of another form.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        checks, sums = Checks.from_dict(record["checks"]), read_sums(folder)
        archive = archive_of(folder)
        return Exported(folder, files_of(folder), sums, checks, archive if archive.is_file() else None)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is no export of this version: {error}") from None
