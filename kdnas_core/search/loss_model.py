"""A loss model: predicts the losses of architectures from those that were judged, with the uncertainty.

A Gaussian process (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006) over the logarithms
of an architecture's dimensions predicts the logarithm of its loss. Its prior mean falls with depth, widths
and heads, since a larger student is seldom a worse one. It also knows what a cut of the teacher keeps: heads
of the teacher's size are copied whole, and at the teacher's width so is the residual stream, which makes a
step. Around the prior mean there is a linear trend and a smooth deviation. So the model says something
before anything was judged, and a few losses are enough to correct it.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

from kdnas_core.architecture import Architecture
from kdnas_core.search.space import SearchSpace

SLOPE = 0.1  # by which the prior mean falls, for each standard deviation of a dimension in the space ...
STEP = 0.2  # ... and at the teacher's width
LEVEL = math.log(0.4)  # of the prior mean before anything was judged
LEAST_LOSS = 1e-4  # smaller ones count as this, since logarithms are taken
SAMPLE = 512  # architectures by which dimensions are scaled
SIZES = 5  # features of which more makes a better student, by the prior mean

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class LossModel:
    """A Gaussian process, before or after it learnt losses.

    Attributes:
        teacher: its shape.
        centre: (d,) of the features of architectures.
        scale: (d,) of them.
        process: of the difference between the logarithm of a loss and the prior mean.
        level: of the prior mean at the centre.
    """

    teacher: Architecture
    centre: Numbers
    scale: Numbers
    process: GaussianProcessRegressor
    level: float = LEVEL

    @classmethod
    def of(cls, space: SearchSpace, teacher: Architecture) -> LossModel:
        """Returns the prior for students of a teacher in a space."""
        drawn = np.array([_features(each, teacher) for each in space.sample(random.Random(0), SAMPLE, ())])
        centre, scale = drawn.mean(0), drawn.std(0)
        scale[scale < 1e-12] = 1.0
        centre[-1], scale[-1] = 0.0, 1.0  # a step of the same height however rare it is
        return cls(teacher, centre, scale, GaussianProcessRegressor(_kernel()))

    def fitted(
        self, architectures: Sequence[Architecture], losses: Sequence[float], errors: Sequence[float]
    ) -> LossModel:
        """Returns a model that has learnt losses.

        Args:
            architectures: those that were judged, at least one.
            losses: of each.
            errors: standard deviation of the logarithm of each loss, beside the noise of a measurement.
        """
        features = self._scaled(architectures)
        rest = np.log(np.maximum(losses, LEAST_LOSS)) - _fall(features)
        level = float(rest.mean())
        process = GaussianProcessRegressor(_kernel(), alpha=1e-8 + np.square(errors))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is no fault
            process.fit(features, rest - level)
        return replace(self, process=process, level=level)

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Numbers, Numbers]:
        """Predicts logarithms of losses: their mean (n,) and covariance (n, n), without measuring noise."""
        features = self._scaled(architectures)
        mean, covariance = self.process.predict(features, return_cov=True)
        return self._mean(mean, features), covariance - np.eye(len(features)) * self._noise

    def predict_each(self, architectures: Sequence[Architecture]) -> tuple[Numbers, Numbers]:
        """Predicts logarithms of losses: their mean (n,) and standard deviation (n,), at less cost."""
        features = self._scaled(architectures)
        mean, deviation = self.process.predict(features, return_std=True)
        return self._mean(mean, features), np.sqrt(np.maximum(deviation**2 - self._noise, 1e-12))

    def _mean(self, difference: Numbers, features: Numbers) -> Numbers:
        mean: Numbers = self.level + _fall(features) + difference
        return mean

    def _scaled(self, architectures: Sequence[Architecture]) -> Numbers:
        features = np.array([_features(each, self.teacher) for each in architectures])
        return (features - self.centre) / self.scale

    @property
    def _noise(self) -> float:
        """The variance of a measurement."""
        kernel = getattr(self.process, "kernel_", self.process.kernel)
        return float(kernel.k2.noise_level)


def _kernel() -> Kernel:
    """Of a linear trend and a smooth deviation, scaled together, and the noise of a measurement."""
    shape = DotProduct(1.0, "fixed") + ConstantKernel(0.3, "fixed") * Matern(1.5, "fixed", nu=2.5)
    return ConstantKernel(0.09, (1e-2, 1.0)) * shape + WhiteKernel(1e-4, (1e-5, 1e-2))


def _fall(features: Numbers) -> Numbers:
    """By how much the prior mean differs from its level."""
    fall: Numbers = -SLOPE * features[:, :SIZES].sum(1) - STEP * features[:, -1]
    return fall


def _features(architecture: Architecture, teacher: Architecture) -> list[float]:
    """Logarithms of dimensions; an activation is a constant or a step, and so is the teacher's width."""
    width = architecture.hidden_size
    sizes = (
        architecture.layers,
        width,
        architecture.intermediate_size * (architecture.feed_forward_networks or 1),
        architecture.attention_heads,
    )
    ratios = (
        (architecture.embedding_size or width) / width,
        (architecture.bottleneck_size or width) / width,
    )
    likeness = -abs(math.log(_head_size(architecture) / _head_size(teacher)))
    steps = (architecture.hidden_act == act for act in ("relu", "silu"))
    is_whole = width >= teacher.hidden_size
    return [*map(math.log, sizes), likeness, *map(math.log, ratios), *map(float, steps), float(is_whole)]


def _head_size(architecture: Architecture) -> float:
    return (architecture.bottleneck_size or architecture.hidden_size) / architecture.attention_heads
