"""Small things that many tests of learning and measuring start from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from kdnas_core.distillation.targets import Targets, teacher_targets
from kdnas_core.distillation.teacher import Teacher, load_teacher
from kdnas_core.measure.memory import cache_folder
from kdnas_core.measure.reading import LatencyReading

torch.set_num_threads(1)  # things this small are not worth a second


@cache
def teacher_of(folder: Path) -> Teacher:
    """The tiny teacher, loaded once for all tests; none may change it."""
    return load_teacher(str(folder))


def targets_of(teacher: Teacher, texts: Sequence[str], sequence_length: int = 64) -> Targets:
    """What the teacher says to some texts."""
    return teacher_targets(teacher, texts, sequence_length, None, cache_folder())


def made_up_targets(seed: int, lengths: Sequence[int], layers: int, width: int) -> Targets:
    """Teacher outputs of random numbers, about a mean that is not 0, with a true variance."""
    rng = np.random.default_rng(seed)
    tokens = sum(lengths)
    hidden = (rng.normal(size=(tokens, layers, width)) + rng.normal(size=(layers, width))).astype(np.float16)
    return Targets(
        ids=rng.integers(1, 50, tokens),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        hidden=hidden,
        variance=hidden.astype(np.float64).var(axis=0).mean(axis=1),
    )


def reading_of(milliseconds: float, teacher_milliseconds: float = 10.0, clean: bool = True) -> LatencyReading:
    """A latency reading as it would be on some machine."""
    return LatencyReading(
        p50=milliseconds,
        p95=milliseconds * 1.1,
        samples=(milliseconds,) * 3,
        teacher_p50=teacher_milliseconds,
        runtime="onnxruntime",
        dtype="float32",
        threads=1,
        batch_size=1,
        sequence_length=16,
        device="a machine",
        repeated=0,
        clean=clean,
    )
