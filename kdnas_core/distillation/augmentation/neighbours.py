"""Words whose vectors are nearest to a word's: from a GloVe file, or among the teacher's own embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from kdnas_core.distillation.augmentation.words import in_its_place, is_word, whole_words
from kdnas_core.errors import BadInput
from kdnas_core.models.teacher import Teacher

MOST_WORDS = 100_000  # the most frequent: as in TinyBERT's code, and so that the table fits in memory
CHUNK = 128  # words of one matrix product, whose 100,000 columns take 51 MB then

Vectors = NDArray[np.float32]
Near = dict[str, tuple[str, ...]]  # the neighbours of a word


@dataclass(frozen=True)
class Neighbours:
    """A table of words, and how any word is looked up.

    Attributes:
        words: (W,) of letters alone.
        table: (W, E) their vectors, of length 1.
        vectors: gives (words, E) vectors of any words, with zeros for a word that it does not know.
    """

    words: Sequence[str]
    table: torch.Tensor
    vectors: Callable[[Sequence[str]], torch.Tensor]


@torch.inference_mode()
def nearest(neighbours: Neighbours, words: Sequence[str], count: int) -> Near:
    """The `count` nearest neighbours by cosine of each word, in its case and in alphabetical order.

    Never the word itself; none for a word without a vector.
    """
    found: Near = {}
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        vectors = neighbours.vectors(chunk)
        # a word may be in the table in three cases, each of which may be the word itself
        best = (vectors @ neighbours.table.T).topk(min(3 * (count + 1), len(neighbours.words))).indices
        for word, known, row in zip(chunk, vectors.any(dim=1).tolist(), best.tolist(), strict=True):
            close = [neighbours.words[index] for index in row] if known else []
            found[word] = in_its_place(close, word, count)
    return found


def neighbours_in_embeddings(teacher: Teacher) -> Neighbours:
    """The teacher's input embeddings of whole words; a word's vector is the mean of its pieces'."""
    weights = teacher.model.get_input_embeddings().weight
    assert isinstance(weights, torch.Tensor)
    rows = weights.detach().float()
    words = dict(islice(whole_words(teacher.tokenizer, len(rows)).items(), MOST_WORDS))
    unknown = teacher.tokenizer.unk_token_id

    def vectors(asked: Sequence[str]) -> torch.Tensor:
        # byte-level BPE knows a word by the space before it
        pieces = teacher.tokenizer([f" {word}" for word in asked], add_special_tokens=False)["input_ids"]
        nothing = torch.zeros(rows.shape[1])
        known = (ids if unknown not in ids else [] for ids in pieces)
        return torch.stack([rows[ids].mean(dim=0) if ids else nothing for ids in known])

    return Neighbours(list(words.values()), F.normalize(rows[list(words)]), vectors)


def neighbours_in_glove(path: Path) -> Neighbours:
    """The words of a text file of word vectors, `word v1 v2 ...` a line, as GloVe's are: its first 100,000.

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

    def look_up(asked: Sequence[str]) -> torch.Tensor:
        found = torch.tensor([numbers.get(word, numbers.get(word.lower(), -1)) for word in asked])
        return table[found] * (found >= 0)[:, None]

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
    """Whether a line has more numbers than the first has: one of them was taken for the word's end."""
    return _vector(word.split(" ")[1:][-1:] or ["none"]) is not None
