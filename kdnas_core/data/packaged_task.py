"""The packaged task: which library does a paragraph document? Made from the packaged corpus.

The libraries' names are masked, so that the text does not hold the answer. All paragraphs of a module are in
one split, so that a module does not leak from one split into another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas_core.data.harvest import Paragraph, harvest

# The installed libraries with the most documentation.
LIBRARIES = (
    "networkx",
    "numpy",
    "pandas",
    "python",
    "scipy",
    "sklearn",
    "streamlit",
    "sympy",
    "torch",
    "transformers",
)
_NAMES = (*LIBRARIES, "pytorch", "cpython", "scikit-learn", "scikit", "hugging ?face", "np", "nx", "pd", "st")
_NAME = re.compile(rf"(?<![A-Za-z])({'|'.join(_NAMES)})(?![A-Za-z])", re.IGNORECASE)
MASK = "it"
SHORTEST = 60  # characters
MOST = {"train": 400, "validation": 80, "test": 120}  # paragraphs of each library

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Example:
    """A paragraph with the library's names masked, and the index of the library in `LIBRARIES`."""

    sentence: str
    label: int


def packaged_task(cache: Path, progress: Callable[[str], None] | None = None) -> dict[Split, list[Example]]:
    """Returns the three splits, the same on every machine with the same libraries.

    Args:
        cache: folder of the harvested corpus.
        progress: called with a sentence on what is being done.
    """
    return split_up(harvest(cache, progress))


def judged_paragraphs(cache: Path, progress: Callable[[str], None] | None = None) -> list[str]:
    """Returns the paragraphs of the validation and test splits as they are in the corpus, unmasked."""
    chosen = _chosen(harvest(cache, progress))
    return [paragraph.text for split in ("validation", "test") for paragraph in chosen[split]]


def split_up(paragraphs: list[Paragraph]) -> dict[Split, list[Example]]:
    """Splits paragraphs by module, with at most `MOST` of each library in a split."""
    return {
        split: [
            Example(_NAME.sub(MASK, paragraph.text), LIBRARIES.index(paragraph.package))
            for paragraph in of_split
        ]
        for split, of_split in _chosen(paragraphs).items()
    }


def _chosen(paragraphs: list[Paragraph]) -> dict[Split, list[Paragraph]]:
    splits: dict[Split, list[Paragraph]] = {"train": [], "validation": [], "test": []}
    counts: dict[tuple[Split, str], int] = {}
    # sorted by a hash, so that the first paragraphs of a library are not all of one module
    for paragraph in sorted(paragraphs, key=lambda each: (_hash(each.text), each.module)):
        if paragraph.package not in LIBRARIES or len(paragraph.text) < SHORTEST:
            continue
        split = _split(paragraph.module)
        counts[split, paragraph.package] = count = counts.get((split, paragraph.package), 0) + 1
        if count <= MOST[split]:
            splits[split].append(paragraph)
    return splits


def _split(module: str) -> Split:
    tenth = _hash(module) % 10
    return "train" if tenth < 6 else "validation" if tenth < 8 else "test"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
