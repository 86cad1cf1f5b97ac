"""What was checked of an export, and how it went: kept in its `kdnas.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdnas_core.measure.reading import LatencyReading

MOST_DIFFERENCE = 1e-4  # of ONNX in float32 from torch
KEPT = 0.98  # of the task score, by int8: below it a user is told


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
