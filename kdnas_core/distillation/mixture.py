"""Texts of several languages in one corpus, so mixed that the large ones do not drown the small ones."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdnas_core.distillation.corpus import read_corpus
from kdnas_core.distillation.parts import Part, parts_of
from kdnas_core.errors import BadInput


@dataclass(frozen=True)
class Text:
    """A passage and the language it is in, by the name of the corpus's part (`parts.Part`)."""

    text: str
    language: str


def read_texts(
    source: str,
    cache: Path,
    seed: int,
    limit: int,
    temperature: float,
    progress: Callable[[str], None] | None = None,
) -> list[Text]:
    """Up to `limit` different texts of a corpus, mixed over its languages by temperature.

    Their order is a shuffle in which the first k texts are mixed as all of them are, for any k. A text that
    two languages share is the first one's. Of a corpus of one part these are the texts of `read_corpus`, in
    its order.

    Args:
        source: whatever `corpus.check_corpus` takes.
        cache: folder for the packaged corpus.
        seed: determines the choice and the order.
        limit: the most texts; also the most that are read of each data set of a hub.
        temperature: as in `quotas`.
        progress: told in words what is read.

    Raises:
        BadInput: a part cannot be read or adds no text, or the temperature is not above 0.
    """
    parts = parts_of(source)
    if len(parts) == 1:
        texts = read_corpus(parts[0].source, cache, seed, limit, progress)
        return [Text(text, parts[0].language) for text in texts]
    found = _texts_of(parts, cache, seed, limit, progress)
    wanted = quotas({language: len(texts) for language, texts in found.items()}, limit, temperature)
    return _mixed({language: texts[: wanted[language]] for language, texts in found.items()}, seed)


def quotas(counts: Mapping[str, int], limit: int, temperature: float) -> dict[str, int]:
    """How many texts each language gives, so that all give min(limit, all there are) together.

    The share of a language with n texts is in proportion to n ** (1 / temperature). One that has fewer than
    its share gives all it has, and the others share out the rest by the same rule; what rounding leaves goes
    to the largest remainders.

    Args:
        counts: for each language the number of its texts.
        limit: the most texts of all languages together.
        temperature: above 0; 1 mixes in proportion, a high one evenly. XLM-R's exponent of 0.3 (arXiv
            1911.02116, section 3.1) is a temperature of 3.33.

    Raises:
        BadInput: the temperature is not above 0.
    """
    if not temperature > 0:
        raise BadInput(f"The temperature of the languages is {temperature}; set one above 0.")
    left = min(limit, sum(counts.values()))
    taken = dict.fromkeys(counts, 0)
    open_counts = {language: count for language, count in counts.items() if count}
    while True:
        shares = _shares(open_counts, left, temperature)
        full = {
            language: open_counts[language] for language in shares if shares[language] >= counts[language]
        }
        if not full:
            return taken | _rounded(shares, left)
        taken |= full
        left -= sum(full.values())
        open_counts = {name: count for name, count in open_counts.items() if name not in full}


def _shares(counts: Mapping[str, int], total: int, temperature: float) -> dict[str, float]:
    # divided by the largest before the power, which overflows where the temperature is low
    largest = max(counts.values(), default=1)
    weights = {language: (count / largest) ** (1 / temperature) for language, count in counts.items()}
    whole = sum(weights.values())
    return {language: total * weight / whole for language, weight in weights.items()}


def _rounded(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to `total`: each share rounded down, and one more for the largest remainders."""
    floors = {language: int(share) for language, share in shares.items()}
    by_remainder = sorted(shares, key=lambda language: floors[language] - shares[language])
    for language in by_remainder[: total - sum(floors.values())]:
        floors[language] += 1
    return floors


def _texts_of(
    parts: tuple[Part, ...], cache: Path, seed: int, limit: int, progress: Callable[[str], None] | None
) -> dict[str, list[str]]:
    """The texts of each language, less those of the languages before it."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, part in enumerate(parts):
        # translations often stand on the same lines: with one seed all languages would choose the same ones
        most = limit if part.is_stream else sys.maxsize
        texts = read_corpus(part.source, cache, seed + number, most, progress)
        found[part.language] = [text for text in texts if text not in seen]
        if not found[part.language]:
            raise BadInput(f"Every text of {part.source} is in an earlier part of the corpus; leave it out.")
        seen.update(found[part.language])
    return found


def _mixed(texts: Mapping[str, list[str]], seed: int) -> list[Text]:
    # A plain shuffle could leave a language one text of a small held-out set: instead each text's place is
    # random within a stretch of its own, and the n texts of a language have n stretches of equal length.
    rng = random.Random(seed)
    placed = [
        ((rank + rng.random()) / len(of_language), Text(text, language))
        for language, of_language in texts.items()
        for rank, text in enumerate(of_language)
    ]
    return [text for _, text in sorted(placed, key=lambda pair: pair[0])]
