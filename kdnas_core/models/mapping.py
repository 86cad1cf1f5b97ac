"""The layer mapping from student to teacher. Layers are counted from 1; layer 0 is the embedding output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean

from kdnas_core.errors import BadInput
from kdnas_core.spec import Mapping

HIDDEN, PROBE, YARDSTICK = "hidden", "hidden_probe", "yardstick"  # terms by which students are judged


def layer_map(
    mapping: Mapping | Sequence[int | None], layers: int, teacher_layers: int
) -> list[tuple[int, ...]]:
    """Returns the teacher layers of each student layer 1..M; an empty tuple if it learns from none.

    "uniform" is floor(i * N / M), "last" is N - M + i, "uniform+last" both, in that order (KD-NAS, arXiv
    2303.09639); for M = N and for the last layer both are the same. "top" is another name of "last" and
    "bottom" is i (TinyBERT, 1909.10351). "skip" is floor(i * N / M) for all but the last layer, which learns
    from none (BERT-PKD, 1908.09355). "final" maps only the last layer, to the teacher's last (MiniLM,
    2002.10957). In a student deeper than its teacher, the first layers learn from the teacher's first. A list
    names one teacher layer for each student layer.

    Args:
        mapping: the rule, or a teacher layer 0..N for each student layer.
        layers: M, the student's layers.
        teacher_layers: N, the teacher's.

    Raises:
        BadInput: the mapping names a layer that the teacher lacks, or no layer learns.
    """
    n, m = teacher_layers, layers
    if not isinstance(mapping, str):
        return _as_listed(mapping, m, n)
    if mapping == "final":
        return [*[()] * (m - 1), (n,)]
    if mapping == "bottom":
        return _bottom(m, n)
    uniform = [max(1, i * n // m) for i in range(1, m + 1)]
    if mapping == "skip":
        return _skip(uniform)
    last = [max(1, n - m + i) for i in range(1, m + 1)]
    rules = {"uniform": [uniform], "last": [last], "top": [last], "uniform+last": [uniform, last]}[mapping]
    return list(zip(*rules, strict=True))


def mean_over_layers(values: dict[tuple[int, int], float]) -> float:
    """Averages values by (student layer, teacher layer) over teacher layers, then over student layers."""
    by_layer: dict[int, list[float]] = {}
    for (layer, _), value in values.items():
        by_layer.setdefault(layer, []).append(value)
    return fmean(map(fmean, by_layer.values()))


def _as_listed(listed: Sequence[int | None], m: int, n: int) -> list[tuple[int, ...]]:
    if len(listed) != m:
        raise BadInput(
            f"A list of {len(listed)} teacher layers does not fit a student of {m} layers; name one for each "
            "layer, and search students of one depth."
        )
    for layer in listed:
        if layer is not None and not 0 <= layer <= n:
            raise BadInput(
                f"Teacher layer {layer} is named, but the teacher has layers 0 to {n}; name those."
            )
    if all(layer is None for layer in listed):
        raise BadInput("The mapping names no teacher layer; name one for at least one student layer.")
    return [() if layer is None else (layer,) for layer in listed]


def _bottom(m: int, n: int) -> list[tuple[int, ...]]:
    if m > n:
        raise BadInput(
            f"The mapping 'bottom' needs a teacher layer {m}, but the teacher has {n}; choose 'uniform'."
        )
    return [(i,) for i in range(1, m + 1)]


def _skip(uniform: list[int]) -> list[tuple[int, ...]]:
    if len(uniform) == 1:
        raise BadInput(
            "The mapping 'skip' leaves out the last layer, which is a student's only one; choose another "
            "mapping, or take 1 out of space.layers."
        )
    return [*((layer,) for layer in uniform[:-1]), ()]


def judging_term(terms: Collection[str]) -> str | None:
    """Returns the term of those evaluated whose mean over layers is L of the reward; None if none is."""
    return next((name for name in (YARDSTICK, PROBE, HIDDEN) if name in terms), None)
