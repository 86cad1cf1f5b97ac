"""The checks of an export, and an export as read from its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.package.layout import WEIGHTS, files_of, read_sums
from kdnas_core.package.target import archive_of

MOST_DIFFERENCE = 1e-4  # between ONNX in float32 and torch
KEPT = 0.98  # share of the task score that int8 must keep, else the user is warned

RECORD = "kdnas.json"


@dataclass(frozen=True)
class OnnxCheck:
    """The ONNX files, compared with torch and with each other.

    Attributes:
        max_difference_fp32: the largest absolute difference of any output from torch's, on padded batches.
        max_difference_int8: the same with 8-bit weights.
        int8_task: the task on which both are scored; None if it could not be read.
        score_fp32: the score in float32, 0 to 1.
        score_int8: the score with 8-bit weights.
        int8_retained: the share of the float32 score that 8-bit weights keep; None if undefined.
    """

    max_difference_fp32: float
    max_difference_int8: float
    int8_task: str | None = None
    score_fp32: float | None = None
    score_int8: float | None = None
    int8_retained: float | None = None


@dataclass(frozen=True)
class Checks:
    """All checks of one export.

    Attributes:
        parameters: as counted by stock `transformers`.
        versions: of the libraries used.
        onnx: None without ONNX files.
        onnxruntime_alone: the largest difference of vectors made with onnxruntime and tokenizers alone.
        sentence_transformers: the same with sentence-transformers; None without its files.
        latencies: measured again on the exported files, by runtime.
        notes: sentences on the checks that were not possible.
    """

    parameters: int
    versions: dict[str, str]
    onnx: OnnxCheck | None
    onnxruntime_alone: float | None
    sentence_transformers: float | None
    latencies: dict[str, LatencyReading]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, ready for JSON."""
        latencies = {runtime: reading.to_dict() for runtime, reading in self.latencies.items()}
        return {**asdict(self), "latencies": latencies, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Checks:
        """Reads the checks from the fields of `to_dict`."""
        latencies = {runtime: LatencyReading.from_dict(each) for runtime, each in fields["latencies"].items()}
        onnx = fields["onnx"] and OnnxCheck(**fields["onnx"])
        return cls(**{**fields, "latencies": latencies, "onnx": onnx, "notes": tuple(fields["notes"])})


def loss_by_int8(check: OnnxCheck) -> str | None:
    """Returns a sentence on the score that 8-bit weights keep; None if unknown."""
    if check.int8_retained is None:
        return None
    kept = f"{100 * check.int8_retained:.1f} % of the float32 score on the task {check.int8_task}"
    figures = f"({100 * (check.score_int8 or 0):.1f} against {100 * (check.score_fp32 or 0):.1f})"
    if check.int8_retained >= KEPT:
        return f"With 8-bit weights it keeps {kept} {figures}."
    return f"With 8-bit weights it keeps only {kept} {figures}; take the float32 file where that matters."


@dataclass(frozen=True)
class Exported:
    """An exported folder that was checked.

    Attributes:
        path: the folder.
        files: names of its files, relative to it.
        checksums: SHA-256 of each file but the list of checksums.
        checks: of the export.
        zip: the archive beside it, if there is one.
    """

    path: Path
    files: list[str]
    checksums: dict[str, str]
    checks: Checks
    zip: Path | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of its model.safetensors."""
        return self.checksums[WEIGHTS]

    @property
    def has_vectors(self) -> bool:
        """Whether sentence-transformers can load it."""
        return "modules.json" in self.files

    @property
    def has_onnx(self) -> bool:
        """Whether it has ONNX files."""
        return self.checks.onnx is not None

    def to_dict(self) -> dict[str, Any]:
        """Returns the export object of the command line's `--json`."""
        checks = self.checks
        latencies = {
            runtime: {"p50": reading.p50, "p95": reading.p95, "speedup": reading.speedup}
            for runtime, reading in checks.latencies.items()
        }
        return {
            "path": str(self.path),
            "files": self.files,
            "sha256": self.sha256,
            "verified": True,  # an export that fails a check is deleted
            "checksums": self.checksums,
            "onnx": None if checks.onnx is None else asdict(checks.onnx),
            "latency_ms": latencies or None,
            "zip": None if self.zip is None else str(self.zip),
            "notes": list(checks.notes),
        }


def read_export(folder: Path) -> Exported:
    """Reads an export of this product.

    Raises:
        OSError: there is none.
        ValueError: it is incomplete, or of another format.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        checks, sums = Checks.from_dict(record["checks"]), read_sums(folder)
        archive = archive_of(folder)
        return Exported(folder, files_of(folder), sums, checks, archive if archive.is_file() else None)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is no export of this version: {error}") from None
