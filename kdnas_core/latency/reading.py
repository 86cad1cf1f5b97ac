"""LatencyReading: one measurement of a model, with all that is needed to trust or repeat it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LatencyReading:
    """What the latency protocol measured. Times are milliseconds of wall time for one batch.

    Attributes:
        p50: median of `samples`.
        p95: their 95th percentile.
        samples: every timed run that counted, in order; none where they were left in the store.
        teacher_p50: median of the teacher's runs, interleaved with these one to one.
        runtime: for example "onnxruntime".
        dtype: of weights and arithmetic.
        threads: threads of the runtime.
        batch_size: sequences in the batch.
        sequence_length: tokens in each.
        device: name of the machine and its processor.
        repeated: runs thrown away because something else had the core meanwhile.
        n: how many timed runs counted.
        clean: False where too few clean runs could be had; the samples then include unclean ones.
    """

    p50: float
    p95: float
    samples: tuple[float, ...] = field(compare=False)  # the same measurement with them or without
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
        """How many times faster than the teacher, from runs that alternated with the teacher's."""
        return self.teacher_p50 / self.p50

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, ready for JSON."""
        return {**dataclasses.asdict(self), "samples": list(self.samples)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LatencyReading:
        """The reading whose `to_dict` this is."""
        return cls(**{**fields, "samples": tuple(fields["samples"])})
