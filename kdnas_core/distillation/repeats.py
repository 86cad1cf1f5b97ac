"""Texts that nearly repeat another: what a student is judged by must not be in what it learns from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

WORDS_IN_A_ROW = 5
SHARED = 0.5  # of the word sequences of the shorter of two texts

# a word each; scripts without spaces between words by the character
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")


class Repeats:
    """Tells which texts repeat one of some others.

    A text repeats another if the two share at least half of the shorter one's sequences of five words, case
    and punctuation aside: so does one that holds the other, or is the other with some words changed. Texts of
    fewer than five words are compared as wholes. (N-gram overlap, as GPT-3's authors clean their tests:
    arXiv 2005.14165, appendix C.)
    """

    def __init__(self, others: Iterable[str]) -> None:
        self.holders: dict[tuple[str, ...], list[int]] = {}  # word sequence -> the others that hold it
        self.sizes: list[int] = []
        for other in others:
            sequences = _sequences(other)
            for sequence in sequences:
                self.holders.setdefault(sequence, []).append(len(self.sizes))
            self.sizes.append(len(sequences))

    def __contains__(self, text: str) -> bool:
        sequences = _sequences(text)
        shared = Counter(other for each in sequences for other in self.holders.get(each, ()))
        return any(
            count >= SHARED * min(len(sequences), self.sizes[other]) for other, count in shared.items()
        )


def _sequences(text: str) -> set[tuple[str, ...]]:
    """All sequences of five words; of a shorter text the one of all its words; of one without words none."""
    words = _WORD.findall(text.lower())
    return set(zip(*(words[start:] for start in range(min(WORDS_IN_A_ROW, len(words)))), strict=False))
