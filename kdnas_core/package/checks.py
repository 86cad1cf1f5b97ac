"""What an export was checked by, and an export as it is read again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.package.layout import WEIGHTS, files_of, read_sums
from kdnas_core.package.target import archive_of

MOST_DIFFERENCE = 1e-4  # of ONNX in float32 from torch
KEPT = 0.98  # of the task score, by int8: below it a user is told

RECORD = "kdnas.json"


@dataclass(frozen=True)
class OnnxCheck:
    """The ONNX files against torch and against each other.

    Attributes:
        max_difference_fp32: the largest absolute difference of any output from torch's, on padded batches.
        max_difference_int8: the same with 8-bit weights.
        int8_task: on what the two are compared; None where nothing was to be had.
        score_fp32: the score in float32, 0 to 1.
        score_int8: with 8-bit weights.
        int8_retained: the share of the one that the other keeps; None where it is not defined.
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
        parameters: that stock `transformers` counts.
        versions: of the libraries that were used.
        onnx: None where no ONNX was asked for.
        onnxruntime_alone: the largest difference of vectors made with onnxruntime and tokenizers alone.
        sentence_transformers: the same of those of sentence-transformers; None where it has no such files.
        latencies: measured again on the exported files, by runtime.
        notes: sentences about what could not be had.
    """

    parameters: int
    versions: dict[str, str]
    onnx: OnnxCheck | None
    onnxruntime_alone: float | None
    sentence_transformers: float | None
    latencies: dict[str, LatencyReading]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        latencies = {runtime: reading.to_dict() for runtime, reading in self.latencies.items()}
        return {**asdict(self), "latencies": latencies, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Checks:
        """The checks whose `to_dict` this is."""
        latencies = {runtime: LatencyReading.from_dict(each) for runtime, each in fields["latencies"].items()}
        onnx = fields["onnx"] and OnnxCheck(**fields["onnx"])
        return cls(**{**fields, "latencies": latencies, "onnx": onnx, "notes": tuple(fields["notes"])})


def loss_by_int8(check: OnnxCheck) -> str | None:
    """A sentence on what the 8-bit weights lost; None where that is not known."""
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
