from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from kdnas_core.data.tokens import by_length, endless

LENGTHS = random.Random(0).choices(range(3, 90), k=1_000)


@pytest.mark.parametrize("texts", [None, [4, 19, 2, 7, 30, 11]])
def test_batches_are_of_like_length_and_hold_each_text_once(texts: Sequence[int] | None) -> None:
    batches = by_length(LENGTHS, 5, texts)
    assert sorted(text for batch in batches for text in batch) == sorted(texts or range(1_000))
    assert all(len(batch) == 5 for batch in batches[:-1])
    lengths = [LENGTHS[text] for batch in batches for text in batch]
    assert lengths == sorted(lengths)


def test_all_texts_come_before_any_comes_again_in_other_batches() -> None:
    batches = endless(LENGTHS, 8, seed=0)
    passes = [list(islice(batches, 125)) for _ in range(3)]
    for those in passes:
        assert sorted(text for batch in those for text in batch) == list(range(1_000))
    together = [{frozenset(batch) for batch in those} for those in passes]
    assert not together[0] & together[1]


def test_the_seed_alone_decides_the_order() -> None:
    first, again, other = (list(islice(endless(LENGTHS, 8, seed), 20)) for seed in (0, 0, 1))
    assert first == again != other


def test_texts_read_together_are_of_like_length() -> None:
    batches = list(islice(endless(LENGTHS, 8, seed=0), 125))
    spread = np.mean([np.ptp([LENGTHS[text] for text in batch]) for batch in batches])
    assert spread < 5
