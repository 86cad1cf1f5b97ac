"""Pairs of segments made of single texts, so that a student sees two segments before a task shows it some."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

Passage = str | tuple[str, str]  # a text, or a pair of sentences

WINDOW = 1_000  # texts among which a near one is looked for: the comparisons grow with its square
FEWEST_WORDS = 8  # of a text that is cut into two segments


def with_pairs(texts: Sequence[str], share: float, seed: int) -> list[Passage]:
    """The texts in their order, some of them as the first segment of a pair.

    A third of the pairs are the two halves of one text (adjacent, as BERT's next-sentence pairs are, arXiv
    1810.04805, section 3.1), a third a text with the most similar of the texts around it by TF-IDF, and a
    third a text with any other. A text too short for two halves gets any other.

    Args:
        texts: of one split, so that no pair joins two splits.
        share: of the texts that begin a pair, 0 to 1.
        seed: which texts, and which others.
    """
    rng = random.Random(seed)
    chosen = [index for index in range(len(texts)) if rng.random() < share]
    passages: list[Passage] = list(texts)
    kinds = {index: rng.choice(("adjacent", "near", "any")) for index in chosen}
    near = _nearest(texts, [index for index, kind in kinds.items() if kind == "near"])
    for index, kind in kinds.items():
        halves = _halves(texts[index]) if kind == "adjacent" else None
        # of the others; a text alone has none but itself
        any_other = (index + rng.randrange(1, max(2, len(texts)))) % len(texts)
        passages[index] = halves or (texts[index], texts[near.get(index, any_other)])
    return passages


def _halves(text: str) -> tuple[str, str] | None:
    """A text cut after the sentence that ends nearest to its middle, or at its middle word; None if short."""
    words = text.split()
    if len(words) < FEWEST_WORDS:
        return None
    middle = len(words) // 2
    ends = [place for place, word in enumerate(words[:-1], 1) if word[-1] in ".!?"]
    cut = min(ends, key=lambda place: abs(place - middle), default=middle)
    return " ".join(words[:cut]), " ".join(words[cut:])


def _nearest(texts: Sequence[str], wanted: Sequence[int]) -> dict[int, int]:
    """The most similar other text in the window of each; none where no word is shared."""
    found: dict[int, int] = {}
    for start in range(0, len(texts), WINDOW):
        inside = [index for index in wanted if start <= index < start + WINDOW]
        window = texts[start : start + WINDOW]
        if not inside or not any(text.strip() for text in window):
            continue
        try:
            vectors = TfidfVectorizer(token_pattern=r"\w+").fit_transform(window)
        except ValueError:  # no word in the window
            continue
        alike = (vectors[[index - start for index in inside]] @ vectors.T).toarray()
        alike[np.arange(len(inside)), [index - start for index in inside]] = 0.0
        best = alike.argmax(1)
        found |= {
            index: start + int(place)
            for index, place, row in zip(inside, best, alike, strict=True)
            if row[place] > 0
        }
    return found
