"""Which teacher layers each student layer learns from. Layers are counted from 1."""

from __future__ import annotations

from typing import Literal

Mapping = Literal["uniform+last", "uniform", "last"]


def layer_map(mapping: Mapping, layers: int, teacher_layers: int) -> list[tuple[int, ...]]:
    """The teacher layers of each student layer 1..M, as many for every layer.

    "uniform" is floor(i * N / M), "last" is N - M + i, "uniform+last" both, in that order (KD-NAS, arXiv
    2303.09639); for M = N and for the last layer both are the same. A student deeper than its teacher has
    its first layers learn from the teacher's first.

    Args:
        mapping: the rule.
        layers: M, the student's layers.
        teacher_layers: N, the teacher's.
    """
    n, m = teacher_layers, layers
    uniform = [max(1, i * n // m) for i in range(1, m + 1)]
    last = [max(1, n - m + i) for i in range(1, m + 1)]
    rules = {"uniform": [uniform], "last": [last], "uniform+last": [uniform, last]}[mapping]
    return list(zip(*rules, strict=True))
