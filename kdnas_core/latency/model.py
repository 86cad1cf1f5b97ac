"""A latency model: what an architecture will take, from what this machine has measured.

Imports nothing heavy. It estimates; nothing is called within the budget, or best, by an estimate.
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

FEWEST = 8  # architectures that a model is fitted on
FAR_OVER = 1.5  # times the budget: a shape estimated above that is not measured ...
MOST_ERROR = 0.25  # ... by a model whose p90 error is no larger
ACTIVATIONS = ("gelu", "relu", "silu")

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
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
        readings: how many it was fitted on.
        median_error: of an architecture whose readings were left out, relative to what was measured.
        p90_error: nine in ten of those errors are no larger.
    """

    coefficients: tuple[float, ...]
    readings: int
    median_error: float
    p90_error: float

    @property
    def may_skip(self) -> bool:
        """Whether it is good enough to leave a shape unmeasured that it estimates far over the budget."""
        return self.p90_error <= MOST_ERROR

    def estimate(self, architecture: Architecture, batch_size: int, sequence_length: int) -> float:
        """Milliseconds for one batch."""
        return float(work(architecture, batch_size, sequence_length) @ np.array(self.coefficients))


def work(architecture: Architecture, batch_size: int, sequence_length: int) -> Numbers:
    """What one forward pass has to do, by kind; each costs its own time a unit, never less than none.

    Multiply-adds are those of `Architecture.flops`, split by how well a processor is used by them; elements
    are those that are read and written between the matrix products, and dear where a runtime fuses little.
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


def fitted(known: Sequence[Known]) -> LatencyModel | None:
    """The model with the least squared relative error on what is known; None where that is too little.

    Its error is that of leaving one architecture out, with all its readings, fitting on the rest, and
    estimating it.
    """
    groups = np.unique([reading.architecture.key for reading in known], return_inverse=True)[1]
    if len(set(groups)) < FEWEST:
        return None
    shares = np.array([work(at.architecture, at.batch_size, at.sequence_length) / at.ms for at in known])
    errors = np.concatenate([_left_out(shares, groups == group) for group in set(groups)])
    median, p90 = np.percentile(errors, [50, 90])
    return LatencyModel(tuple(map(float, _fit(shares))), len(known), float(median), float(p90))


def _fit(shares: Numbers) -> Numbers:
    """Coefficients >= 0 by which the rows, each over what was measured, come nearest to 1."""
    scale = np.abs(shares).max(axis=0)
    scale[scale == 0] = 1
    return nnls(shares / scale, np.ones(len(shares)))[0] / scale


def _left_out(shares: Numbers, out: NDArray[np.bool_]) -> Numbers:
    """Relative errors on some rows of a fit on the others."""
    return np.abs(shares[out] @ _fit(shares[~out]) - 1)


def without_drift(readings: Iterable[tuple[str, Architecture, LatencyReading]]) -> list[Known]:
    """Readings as if each had been taken on the machine in its usual state.

    Each holds what its teacher took meanwhile: of a session in which that teacher was a tenth slower than
    usual, a tenth of the time is the machine's.

    Args:
        readings: the teacher, the architecture, and what was measured beside that teacher.
    """
    kept = [((teacher, at.batch_size, at.sequence_length), shape, at) for teacher, shape, at in readings]
    sessions: dict[tuple[str, int, int], list[float]] = {}
    for session, _, at in kept:
        sessions.setdefault(session, []).append(at.teacher_p50)
    usual = {session: statistics.median(taken) for session, taken in sessions.items()}
    return [
        Known(shape, at.batch_size, at.sequence_length, at.p50 * usual[session] / at.teacher_p50)
        for session, shape, at in kept
    ]


def known_here(protocol: LatencySpec) -> list[Known]:
    """What this machine remembers in the runtime of a protocol, with its threads, on its device."""
    shape = Architecture(1, 1, 1, 1)
    wanted = _circumstances(question("", shape, shape, protocol))
    facts = [fact for fact in remembered("latency") if _circumstances(fact[0]) == wanted]
    return without_drift(reading for fact in facts if (reading := _clean(*fact)) is not None)


def _clean(asked: dict[str, Any], answer: dict[str, Any]) -> tuple[str, Architecture, LatencyReading] | None:
    """A remembered reading as `level` takes it; None where it is unclean or damaged."""
    try:
        reading = LatencyReading.from_dict(answer)
        teacher = f"{asked['teacher']} {asked['teacher_shape']}"
        return (teacher, Architecture(**asked["architecture"]), reading) if reading.clean else None
    except (LookupError, TypeError, ValueError):
        return None


def _circumstances(asked: dict[str, Any]) -> list[Any]:
    """What must be alike for two latencies to be of one model: all but the models, batch, length and runs."""
    protocol = asked.get("protocol") or {}
    where = [asked.get(name) for name in ("device", "version", "graph")]
    return [*where, protocol.get("runtime"), protocol.get("threads")]


def model_here(protocol: LatencySpec) -> LatencyModel | None:
    """The model fitted on `known_here`; the same one as long as nothing new is remembered."""
    return _model(tuple(known_here(protocol)))


@lru_cache(maxsize=16)
def _model(known: tuple[Known, ...]) -> LatencyModel | None:
    return fitted(known)
