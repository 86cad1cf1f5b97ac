"""Batches of texts of like length, so that little of a batch is padding. The only place that makes them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

BUCKET = 50  # batches whose texts are sorted by length together


def by_length(lengths: ArrayLike, size: int, texts: Sequence[int] | None = None) -> list[list[int]]:
    """Each text once, the shortest first.

    Args:
        lengths: of all texts, in tokens.
        size: of a batch, in texts.
        texts: which; all if left out.
    """
    every = np.asarray(lengths)
    chosen = np.arange(len(every)) if texts is None else np.array(list(texts), dtype=np.int64)
    order = chosen[np.argsort(every[chosen], kind="stable")]
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


def passes(lengths: ArrayLike, size: int, seed: int) -> Iterator[list[list[int]]]:
    """The batches of one pass over all texts after another: each time others, in another order.

    Args:
        lengths: of all texts, in tokens.
        size: of a batch, in texts.
        seed: of the order.
    """
    every, rng = np.asarray(lengths), random.Random(seed)
    while True:
        order = rng.sample(range(len(every)), len(every))
        buckets = (order[start : start + size * BUCKET] for start in range(0, len(order), size * BUCKET))
        batches = [batch for bucket in buckets for batch in by_length(every, size, bucket)]
        yield rng.sample(batches, len(batches))


def endless(lengths: ArrayLike, size: int, seed: int) -> Iterator[list[int]]:
    """The batches of all passes in a row; arguments as for `passes`."""
    return chain.from_iterable(passes(lengths, size, seed))
