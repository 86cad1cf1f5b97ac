"""The points of a latency sweep, their order and an estimate of the time. Needs no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.spec import LatencySpec, Runtime, SweepSpec

LONGEST = 512  # tokens, the default of a teacher
MODELS_S = 20.0  # to load the teacher, and to export teacher and student for all runtimes
# rough time of a run relative to ONNX Runtime in float32, without a measurement
_FACTORS: dict[Runtime, float] = {
    "onnxruntime": 1.0,
    "onnxruntime-int8": 0.5,
    "torch": 1.7,
    "torch-cuda": 0.1,
}


@dataclass(frozen=True)
class Point:
    """A point of a sweep: runtime, sequences in a batch, tokens in each."""

    runtime: Runtime
    batch_size: int
    sequence_length: int

    @property
    def tokens(self) -> int:
        """Tokens in one batch."""
        return self.batch_size * self.sequence_length

    def of(self, protocol: LatencySpec) -> LatencySpec:
        """Returns the protocol with this runtime, batch size and length."""
        return protocol.model_copy(update=vars(self))


def points(how: SweepSpec, protocol: LatencySpec, longest: int = LONGEST) -> list[Point]:
    """Returns the distinct points of a sweep: the protocol's batch size and length first, then by tokens.

    Args:
        how: the sweep.
        protocol: of the run.
        longest: most tokens that the teacher reads; longer lengths are left out.
    """
    own = protocol.batch_size, protocol.sequence_length
    lengths = [length for length in how.sequence_lengths if length <= longest]
    others = {(size, own[1]) for size in how.batch_sizes} | {(own[0], length) for length in lengths}
    shapes = [own, *sorted(others - {own}, key=lambda shape: (shape[0] * shape[1], shape))]
    return [Point(runtime, *shape) for shape in shapes for runtime in how.runtimes]


def points_of(how: SweepSpec, protocol: LatencySpec, count: int) -> list[Point]:
    """Returns the points of a sweep with a known count of points; all if no limit on length gives that."""
    every = points(how, protocol)
    limits = sorted(how.sequence_lengths, reverse=True)
    shorter = [points(how, protocol, limit - 1) for limit in limits]
    return next((chosen for chosen in [every, *shorter] if len(chosen) == count), every)


def too_long(how: SweepSpec, longest: int) -> str | None:
    """Returns a sentence on the lengths that are left out because they exceed the teacher's; else None."""
    out = sorted(length for length in how.sequence_lengths if length > longest)
    if not out:
        return None
    return f"The teacher reads fewer than {out[0]} tokens, so {', '.join(map(str, out))} are left out."


def readings_at(readings: Sequence[LatencyReading], at: Sequence[Point]) -> list[LatencyReading]:
    """Returns the readings at these points."""
    keys = {(point.runtime, point.batch_size, point.sequence_length) for point in at}
    return [
        reading
        for reading in readings
        if (reading.runtime, reading.batch_size, reading.sequence_length) in keys
    ]


def seconds_of(todo: Sequence[Point], turn_ms: float, protocol: LatencySpec) -> float:
    """Estimates the seconds to measure points, in proportion to their tokens.

    Args:
        todo: the points to measure.
        turn_ms: one run of the teacher and one of the student under the run's protocol.
        protocol: of the run.
    """
    own = Point(protocol.runtime, protocol.batch_size, protocol.sequence_length)
    turns = (protocol.warmup + protocol.runs) * sum(_weight(point) for point in todo) / _weight(own)
    return MODELS_S + turns * turn_ms / 1e3


def share_done(every: Sequence[Point], taken: int) -> float:
    """Returns the share of the work after the first `taken` points; later points take longer."""
    return sum(_weight(point) for point in every[:taken]) / sum(_weight(point) for point in every)


def _weight(point: Point) -> float:
    return _FACTORS[point.runtime] * point.tokens
