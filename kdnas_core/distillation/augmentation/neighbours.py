"""Nearest neighbours of words, by GloVe vectors or the teacher's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from kdnas_core.distillation.augmentation.words import is_word, replacements, whole_words
from kdnas_core.errors import BadInput
from kdnas_core.models.teacher import Teacher

MOST_WORDS = 100_000  # the most frequent, as in TinyBERT's code; limits the table's memory
CHUNK = 128  # words of one matrix product, which then takes 51 MB

Vectors = NDArray[np.float32]
NeighbourWords = dict[str, tuple[str, ...]]  # the neighbours of a word


@dataclass(frozen=True)
class Neighbours:
    """A table of words, and a function to look up any word.

    Attributes:
        words: (W,) words of letters only.
        table: (W, E) their vectors, of length 1.
        vectors: returns (words, E) vectors of any words, with zeros for unknown ones.
    """

    words: Sequence[str]
    table: torch.Tensor
    vectors: Callable[[Sequence[str]], torch.Tensor]


@torch.inference_mode()
def nearest(neighbours: Neighbours, words: Sequence[str], count: int) -> NeighbourWords:
    """Returns the `count` nearest neighbours of each word by cosine, in its case and alphabetical order.

    The word itself is excluded; a word without a vector has no neighbours.
    """
    neighbour_words: NeighbourWords = {}
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        vectors = neighbours.vectors(chunk)
        # the table may hold a word in three cases (lower, title, upper)
        best = (vectors @ neighbours.table.T).topk(min(3 * (count + 1), len(neighbours.words))).indices
        for word, known, row in zip(chunk, vectors.any(dim=1).tolist(), best.tolist(), strict=True):
            close = [neighbours.words[index] for index in row] if known else []
            neighbour_words[word] = replacements(close, word, count)
    return neighbour_words


def neighbours_in_embeddings(teacher: Teacher) -> Neighbours:
    """Returns the table of the teacher's whole words; a word's vector is the mean of its pieces'."""
    weights = teacher.model.get_input_embeddings().weight
    assert isinstance(weights, torch.Tensor)
    rows = weights.detach().float()
    words = dict(islice(whole_words(teacher.tokenizer, len(rows)).items(), MOST_WORDS))
    unknown = teacher.tokenizer.unk_token_id

    def vectors(looked_up: Sequence[str]) -> torch.Tensor:
        # in byte-level BPE a word begins with a space
        pieces = teacher.tokenizer([f" {word}" for word in looked_up], add_special_tokens=False)["input_ids"]
        nothing = torch.zeros(rows.shape[1])
        known = (ids if unknown not in ids else [] for ids in pieces)
        return torch.stack([rows[ids].mean(dim=0) if ids else nothing for ids in known])

    return Neighbours(list(words.values()), F.normalize(rows[list(words)]), vectors)


def neighbours_in_glove(path: Path) -> Neighbours:
    """Reads the first 100,000 words of a GloVe text file, `word v1 v2 ...` a line.

    Raises:
        BadInput: the file cannot be read, or a line is malformed.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            words, vectors = _parsed(islice(file, MOST_WORDS), path)
    except OSError as error:
        raise BadInput(f"The word vectors {path} cannot be read; name a GloVe text file.") from error
    table = F.normalize(torch.from_numpy(vectors))
    numbers = {word: number for number, word in reversed(list(enumerate(words)))}

    def look_up(looked_up: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([numbers.get(word, numbers.get(word.lower(), -1)) for word in looked_up])
        return table[rows] * (rows >= 0)[:, None]

    return Neighbours(words, table, look_up)


def _parsed(lines: Iterable[str], path: Path) -> tuple[list[str], Vectors]:
    words: list[str] = []
    vectors: list[Vectors] = []
    width = 0
    for number, line in enumerate(lines, start=1):
        width = width or len(line.split()) - 1
        word, *numbers = line.rstrip().rsplit(" ", width)  # in some of GloVe's files a word holds spaces
        vector = _vector(numbers)
        if vector is None or len(vector) != width or width < 2 or _ends_with_number(word):
            raise BadInput(
                f"Line {number} of the word vectors {path} is not a word and {max(width, 2)} numbers; name a "
                "GloVe text file."
            )
        if is_word(word) and vector.any():
            words.append(word)
            vectors.append(vector)
    if not words:
        raise BadInput(f"The word vectors {path} hold no word; name a GloVe text file.")
    return words, np.stack(vectors)


def _vector(numbers: Sequence[str]) -> Vectors | None:
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None


def _ends_with_number(word: str) -> bool:
    """Whether a parsed word ends with a number: its line has more numbers than the first."""
    return _vector(word.split(" ")[1:][-1:] or ["none"]) is not None
