"""A latency model: estimates the latency of an architecture from this machine's measurements.

Imports nothing heavy. An estimate never decides that a student is within the budget, or best.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from kdnas_core.architecture import Architecture
from kdnas_core.files import remembered
from kdnas_core.latency.protocol import question
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.spec import LatencySpec

FEWEST, FEWEST_ROUGH = 8, 3  # architectures needed to fit a model, and a rough one
FAR_OVER = 1.5  # times the budget: shapes estimated above are not measured ...
MOST_ERROR = 0.25  # ... if the model's p90 error is at most this
ACTIVATIONS = ("gelu", "relu", "silu")

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredLatency:
    """A measured latency: milliseconds for a batch of `batch_size` sequences of `sequence_length` tokens."""

    architecture: Architecture
    batch_size: int
    sequence_length: int
    ms: float


@dataclass(frozen=True)
class LatencyModel:
    """Non-negative milliseconds for each unit of work of `work`; errors are shares, such as 0.04.

    Attributes:
        coefficients: one for each kind of work.
        readings: number of readings it was fitted on.
        median_error: of the relative leave-one-architecture-out errors.
        p90_error: their 90th percentile.
    """

    coefficients: tuple[float, ...]
    readings: int
    median_error: float
    p90_error: float

    @property
    def may_skip(self) -> bool:
        """Whether the error is small enough to skip shapes estimated far over the budget."""
        return self.p90_error <= MOST_ERROR

    def estimate(self, architecture: Architecture, batch_size: int, sequence_length: int) -> float:
        """Estimates the milliseconds for one batch."""
        return float(work(architecture, batch_size, sequence_length) @ np.array(self.coefficients))


def work(architecture: Architecture, batch_size: int, sequence_length: int) -> Numbers:
    """Returns the amounts of work of one forward pass by kind, the features of the model.

    The multiply-adds of `Architecture.flops` are split by how efficiently a processor computes them. The
    other kinds are elements read and written between matrix products, slow if a runtime fuses little.
    """
    layers, width, heads = architecture.layers, architecture.hidden_size, architecture.attention_heads
    within = architecture.bottleneck_size or width
    networks = architecture.feed_forward_networks or 1
    tokens = batch_size * sequence_length
    feed_forward = 2 * tokens * layers * networks * within * architecture.intermediate_size
    attention = 2 * tokens * layers * sequence_length * within
    projections = batch_size * architecture.flops(sequence_length) // 2 - feed_forward - attention
    activated = tokens * layers * networks * architecture.intermediate_size
    kinds = [
        1,
        layers,
        projections,
        feed_forward,
        attention,
        tokens * layers * heads * sequence_length,
        tokens * layers * width,
        tokens * width,
        *(activated * (architecture.hidden_act == name) for name in ACTIVATIONS),
    ]
    return np.array(kinds, dtype=np.float64)


# (kinds, 3): what is told apart of the work above in a rough model
ROUGH = np.array([[1, 0, 0], [0, 1, 0], *3 * [[0, 0, 1]], *(3 + len(ACTIVATIONS)) * [[0, 0, 0]]], np.float64)


def fitted(known: Sequence[MeasuredLatency]) -> LatencyModel | None:
    """Fits the model with the least squared relative error; None for fewer than `FEWEST` architectures.

    Its errors are those of leave-one-out cross-validation, by architecture with all its readings.
    """
    return _fitted(known, np.eye(len(ROUGH)), FEWEST)


def fitted_roughly(known: Sequence[MeasuredLatency]) -> LatencyModel | None:
    """Fits a constant, a time for each layer and one for each multiply-add; otherwise as `fitted`.

    None for fewer than `FEWEST_ROUGH` architectures.
    """
    return _fitted(known, ROUGH, FEWEST_ROUGH)


def _fitted(known: Sequence[MeasuredLatency], groups: Numbers, fewest: int) -> LatencyModel | None:
    """Fits a model in which all kinds of work of a group, (kinds, groups), have one coefficient."""
    shapes = np.unique([reading.architecture.key for reading in known], return_inverse=True)[1]
    if len(set(shapes)) < fewest:
        return None
    shares = np.array([work(at.architecture, at.batch_size, at.sequence_length) / at.ms for at in known])
    shares = shares @ groups
    errors = np.concatenate([_left_out(shares, shapes == shape) for shape in set(shapes)])
    median, p90 = np.percentile(errors, [50, 90])
    return LatencyModel(tuple(map(float, groups @ _fit(shares))), len(known), float(median), float(p90))


def _fit(shares: Numbers) -> Numbers:
    """Non-negative least squares for rows divided by their measured time, with the target 1."""
    scale = np.abs(shares).max(axis=0)
    scale[scale == 0] = 1
    return nnls(shares / scale, np.ones(len(shares)))[0] / scale


def _left_out(shares: Numbers, out: NDArray[np.bool_]) -> Numbers:
    """The relative errors on the rows `out` of a fit on the others."""
    return np.abs(shares[out] @ _fit(shares[~out]) - 1)


def without_drift(readings: Iterable[tuple[str, Architecture, LatencyReading]]) -> list[MeasuredLatency]:
    """Corrects readings for the machine's drift.

    Each reading has the teacher's latency of its session. The reading is scaled by the teacher's median over
    all sessions divided by that latency.

    Args:
        readings: the teacher, the architecture, and its reading.
    """
    kept = [((teacher, at.batch_size, at.sequence_length), shape, at) for teacher, shape, at in readings]
    teacher_ms: dict[tuple[str, int, int], list[float]] = {}
    for session, _, at in kept:
        teacher_ms.setdefault(session, []).append(at.teacher_p50)
    usual = {session: statistics.median(of_session) for session, of_session in teacher_ms.items()}
    return [
        MeasuredLatency(shape, at.batch_size, at.sequence_length, at.p50 * usual[session] / at.teacher_p50)
        for session, shape, at in kept
    ]


def known_here(protocol: LatencySpec) -> list[MeasuredLatency]:
    """Returns this machine's cached latencies with the protocol's runtime, threads and device.

    Those of static students are left out: what they take is little beside any layer's work.
    """
    shape = Architecture(1, 1, 1, 1)
    wanted = _circumstances(question("", shape, shape, protocol))
    facts = [fact for fact in remembered("latency") if _circumstances(fact[0]) == wanted]
    readings = [reading for fact in facts if (reading := _clean(*fact)) is not None]
    return without_drift(reading for reading in readings if not reading[1].is_static)


def _clean(key: dict[str, Any], answer: dict[str, Any]) -> tuple[str, Architecture, LatencyReading] | None:
    """A cached reading for `without_drift`; None if it is unclean or damaged."""
    try:
        reading = LatencyReading.from_dict(answer)
        teacher = f"{key['teacher']} {key['teacher_shape']}"
        return (teacher, Architecture(**key["architecture"]), reading) if reading.clean else None
    except (LookupError, TypeError, ValueError):
        return None


def _circumstances(key: dict[str, Any]) -> list[Any]:
    """The facts that all latencies of one model share: not the models, batch size, length and runs."""
    protocol = key.get("protocol") or {}
    where = [key.get(name) for name in ("device", "version", "graph")]
    return [*where, protocol.get("runtime"), protocol.get("threads")]


def model_here(protocol: LatencySpec) -> LatencyModel | None:
    """Returns the model fitted on `known_here`; it is cached until a new latency is measured."""
    return _model(tuple(known_here(protocol)))


@lru_cache(maxsize=16)
def _model(known: tuple[MeasuredLatency, ...]) -> LatencyModel | None:
    return fitted(known)
