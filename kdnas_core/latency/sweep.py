"""A sweep of latencies: which points are measured, in which order, and how long it takes. No models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.spec import LatencySpec, Runtime, SweepSpec

LONGEST = 512  # tokens, where the teacher is not asked
MODELS_S = 20.0  # to load the teacher, and to write teacher and student for all runtimes
# a run's time beside that in ONNX Runtime in float32, roughly, where nothing of it was measured
_FACTORS: dict[Runtime, float] = {
    "onnxruntime": 1.0,
    "onnxruntime-int8": 0.5,
    "torch": 1.7,
    "torch-cuda": 0.1,
}


@dataclass(frozen=True)
class Point:
    """Where one latency is measured: a runtime, sequences in a batch, tokens in each."""

    runtime: Runtime
    batch_size: int
    sequence_length: int

    @property
    def tokens(self) -> int:
        """In one batch."""
        return self.batch_size * self.sequence_length

    def of(self, protocol: LatencySpec) -> LatencySpec:
        """The protocol with this runtime, batch size and length."""
        return protocol.model_copy(update=vars(self))


def points(how: SweepSpec, protocol: LatencySpec, longest: int = LONGEST) -> list[Point]:
    """All points of a sweep, none twice: those at the protocol's own batch and length first, then cheap ones.

    Args:
        how: what is asked for.
        protocol: of the run, with its own batch size and sequence length.
        longest: tokens that the teacher reads; longer texts are left out.
    """
    own = protocol.batch_size, protocol.sequence_length
    lengths = [length for length in how.sequence_lengths if length <= longest]
    others = {(size, own[1]) for size in how.batch_sizes} | {(own[0], length) for length in lengths}
    shapes = [own, *sorted(others - {own}, key=lambda shape: (shape[0] * shape[1], shape))]
    return [Point(runtime, *shape) for shape in shapes for runtime in how.runtimes]


def points_of(how: SweepSpec, protocol: LatencySpec, count: int) -> list[Point]:
    """The points of a sweep that turned out to have so many; all of them while that is not known."""
    every = points(how, protocol)
    limits = sorted(how.sequence_lengths, reverse=True)
    some = [points(how, protocol, limit - 1) for limit in limits]
    return next((asked for asked in [every, *some] if len(asked) == count), every)


def too_long(how: SweepSpec, longest: int) -> str | None:
    """A sentence about the lengths that are left out, since the teacher reads fewer tokens."""
    out = sorted(length for length in how.sequence_lengths if length > longest)
    if not out:
        return None
    return f"The teacher reads fewer than {out[0]} tokens, so {', '.join(map(str, out))} are left out."


def readings_at(readings: Sequence[LatencyReading], asked: Sequence[Point]) -> list[LatencyReading]:
    """Those that were taken at one of these points."""
    keys = {(point.runtime, point.batch_size, point.sequence_length) for point in asked}
    return [
        reading
        for reading in readings
        if (reading.runtime, reading.batch_size, reading.sequence_length) in keys
    ]


def seconds_of(asked: Sequence[Point], turn_ms: float, protocol: LatencySpec) -> float:
    """How long so many points take, roughly: in proportion to their tokens.

    Args:
        asked: what is to be measured.
        turn_ms: one run of the teacher and one of the student, as the run's own protocol has it.
        protocol: of the run.
    """
    own = Point(protocol.runtime, protocol.batch_size, protocol.sequence_length)
    turns = (protocol.warmup + protocol.runs) * sum(_weight(point) for point in asked) / _weight(own)
    return MODELS_S + turns * turn_ms / 1e3


def share_done(asked: Sequence[Point], taken: int) -> float:
    """The share of the work that is done once so many points are taken; later ones are dearer."""
    return sum(_weight(point) for point in asked[:taken]) / sum(_weight(point) for point in asked)


def _weight(point: Point) -> float:
    return _FACTORS[point.runtime] * point.tokens
