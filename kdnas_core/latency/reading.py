"""LatencyReading: one latency measurement of a model, with its conditions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LatencyReading:
    """A measurement by the latency protocol. Times are milliseconds of wall time for one batch.

    Attributes:
        p50: median of `samples`.
        p95: their 95th percentile.
        samples: the counted runs, in order; empty if they were not read from the store.
        teacher_p50: median of the teacher's runs, interleaved with these one to one.
        runtime: for example "onnxruntime".
        dtype: of weights and arithmetic.
        threads: threads of the runtime.
        batch_size: sequences in the batch.
        sequence_length: tokens in each.
        device: name of the machine and its processor.
        repeated: runs discarded because another process used the core.
        n: number of counted runs.
        clean: False if there were too few clean runs; the samples then include unclean ones.
    """

    p50: float
    p95: float
    samples: tuple[float, ...] = field(compare=False)  # a reading without them is the same measurement
    teacher_p50: float
    runtime: str
    dtype: str
    threads: int
    batch_size: int
    sequence_length: int
    device: str
    repeated: int
    clean: bool
    n: int = 0

    def __post_init__(self) -> None:
        if self.samples:
            object.__setattr__(self, "n", len(self.samples))

    @property
    def speedup(self) -> float:
        """The teacher's median over the model's, from alternating runs."""
        return self.teacher_p50 / self.p50

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields by name, for JSON."""
        return {**dataclasses.asdict(self), "samples": list(self.samples)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LatencyReading:
        """Makes a reading from the fields of `to_dict`."""
        return cls(**{**fields, "samples": tuple(fields["samples"])})
