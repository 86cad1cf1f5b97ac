"""TinyBERT's data augmentation: variants of texts with some of their words replaced (arXiv 1909.10351).

Each sentence of a pair is varied independently, from the original. TinyBERT's code overwrites the first, so
that all variants of the second are paired with the last variant of the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdnas_core.distillation.augmentation.candidates import WordCandidates
from kdnas_core.distillation.augmentation.neighbours import NeighbourWords
from kdnas_core.distillation.augmentation.words import Candidates, Reading
from kdnas_core.errors import BadInput

SLAB = 256  # rows whose candidates are in memory at a time

Row = tuple[str, str | None]


@dataclass(frozen=True)
class Augmentation:
    """The settings, with the paper's defaults.

    Attributes:
        copies: N, of each row; fewer remain if some are equal.
        candidates: K, for each word.
        chance: p_t, the probability that a word is replaced in a copy.
        seed: of the replacements.

    Raises:
        BadInput: one of them is out of range.
    """

    copies: int = 20
    candidates: int = 15
    chance: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 0 or self.candidates < 1 or not 0 <= self.chance <= 1:
            raise BadInput(
                "Augmentation needs 0 copies or more, 1 candidate or more, and a chance from 0 to 1; "
                f"these are {self.copies}, {self.candidates} and {self.chance}."
            )


@dataclass(frozen=True)
class _Draw:
    """The random draws for the words of a sentence.

    Attributes:
        replaced: (N, words) whether a word is replaced.
        choice: (N, words) the candidate, as a share of their number.
    """

    reading: Reading
    replaced: NDArray[np.bool_]
    choice: NDArray[np.float64]


def augment(
    rows: Sequence[Row],
    words: WordCandidates,
    settings: Augmentation,
    progress: Callable[[float], None] = lambda share: None,
) -> list[list[Row]]:
    """Returns at most N variants of each row, different from it and from each other.

    A row's variants depend on its text and the seed, not on other rows (except for candidates that are
    equally good up to the rounding of floats).

    Args:
        rows: a sentence and None, or a pair of sentences.
        words: finds the candidates.
        settings: of the augmentation.
        progress: called with the share done, 0 to 1; may raise to give up.
    """
    made: list[list[Row]] = []
    known: NeighbourWords = {}
    for start in range(0, len(rows), SLAB):
        made += _of_slab(rows[start : start + SLAB], words, settings, known)
        progress(len(made) / len(rows))
    return made


def _of_slab(
    rows: Sequence[Row], words: WordCandidates, settings: Augmentation, known: NeighbourWords
) -> list[list[Row]]:
    texts = list(dict.fromkeys(text for row in rows for text in row if text is not None))
    readings = dict(zip(texts, words.read(texts), strict=True))
    draws = [_draws(row, readings, settings) for row in rows]
    # each place that a copy replaces, once
    replaced_words = {
        (draw.reading.text, place): (draw.reading, place)
        for of_row in draws
        for draw in of_row
        for place, replaced in zip(draw.reading.places, draw.replaced.T, strict=True)
        if replaced.any()
    }
    candidates = words.candidates(list(replaced_words.values()), settings.candidates, known)
    return [_variants(row, of_row, candidates) for row, of_row in zip(rows, draws, strict=True)]


def _draws(row: Row, readings: dict[str, Reading], settings: Augmentation) -> list[_Draw]:
    digest = hashlib.sha256(repr((settings.seed, row)).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    drawn = []
    for reading in (readings[text] for text in row if text is not None):
        size = (settings.copies, len(reading.places))
        drawn.append(_Draw(reading, rng.random(size) < settings.chance, rng.random(size)))
    return drawn


def _variants(row: Row, draws: Sequence[_Draw], candidates: Candidates) -> list[Row]:
    made: dict[Row, None] = {}
    for copy in range(len(draws[0].replaced)):
        first, *second = (_varied(draw, copy, candidates) for draw in draws)
        made[first, second[0] if second else None] = None
    made.pop(row, None)
    return list(made)


def _varied(draw: _Draw, copy: int, candidates: Candidates) -> str:
    """Replaces words of the sentence and keeps all characters between them."""
    text, parts, at = draw.reading.text, [], 0
    for index in np.flatnonzero(draw.replaced[copy]).tolist():
        place = draw.reading.places[index]
        if others := candidates[text, place]:
            parts += [text[at : place.start], others[int(draw.choice[copy, index] * len(others))]]
            at = place.end
    return "".join([*parts, text[at:]])
