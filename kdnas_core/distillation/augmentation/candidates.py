"""Candidates to replace a word: the teacher's predictions, or the word's nearest neighbours.

TinyBERT's data augmentation (arXiv 1909.10351, algorithm 1) uses the masked-LM's best words for a word of one
piece, and nearest neighbours for a word of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from kdnas_core.distillation.augmentation.neighbours import (
    Neighbours,
    NeighbourWords,
    nearest,
    neighbours_in_embeddings,
    neighbours_in_glove,
)
from kdnas_core.distillation.augmentation.prediction import Predictor, predict, predictor_of
from kdnas_core.distillation.augmentation.words import Candidates, Occurrence, Reading, read
from kdnas_core.errors import BadInput
from kdnas_core.models.families import first_position
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.teacher import Teacher


@dataclass(frozen=True)
class WordCandidates:
    """Finds candidates for words.

    Attributes:
        tokenizer: the teacher's.
        longest: tokens that are read of a text, special tokens included.
        neighbours: for words of several pieces.
        predictor: for words of one piece; None if the teacher predicts no words, and all use neighbours.
    """

    tokenizer: PreTrainedTokenizerBase
    longest: int
    neighbours: Neighbours
    predictor: Predictor | None

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Returns the texts with the places of words that may be replaced."""
        return read(texts, self.tokenizer, self.longest)

    def candidates(self, words: Sequence[Occurrence], count: int, known: NeighbourWords) -> Candidates:
        """Returns at most `count` candidates for each word, in alphabetical order.

        They do not depend on the other words, up to the rounding of floats.

        Args:
            words: occurrences, each once.
            count: K.
            known: neighbours found before with this `count`; those of new words are added.
        """
        whole = [word for word in words if word[1].token is not None] if self.predictor else []
        predicted = predict(self.predictor, whole, count) if self.predictor else {}
        others = [(reading, place) for reading, place in words if (reading.text, place) not in predicted]
        new = dict.fromkeys(reading.word(place) for reading, place in others)
        known |= nearest(self.neighbours, [word for word in new if word not in known], count)
        return predicted | {(reading.text, place): known[reading.word(place)] for reading, place in others}


def augmenter_for(
    teacher: Teacher,
    head: TeacherHead | None,
    glove: Path | None = None,
    sequence_length: int = 128,
    dtype: torch.dtype | None = None,
) -> tuple[WordCandidates, list[str]]:
    """Makes the `WordCandidates` of a teacher; returns them and notes for the user, a sentence each.

    Args:
        teacher: has the tokenizer and the model.
        head: its masked-LM head, for all of its tokens; None if it has none.
        glove: a text file of word vectors; None for the teacher's own embeddings.
        sequence_length: tokens that are read of a text.
        dtype: to compute in, as of `precision.autocast_dtype`; None for float32.

    Raises:
        BadInput: the tokenizer cannot tell the characters of its tokens or has no mask token, or the file of
            word vectors cannot be used.
        ValueError: the head is not for all tokens.
    """
    if not teacher.tokenizer.is_fast:
        raise BadInput(
            f"The tokenizer of the teacher {teacher.name} cannot tell the characters of its tokens, which "
            "augmentation needs; do without augmentation, or use a teacher with a fast tokenizer."
        )
    neighbours = neighbours_in_embeddings(teacher) if glove is None else neighbours_in_glove(glove)
    predictor = None if head is None else predictor_of(teacher, head, dtype)
    longest = min(sequence_length, _positions(teacher))
    notes = [] if predictor else [_note(teacher, glove)]
    return WordCandidates(teacher.tokenizer, longest, neighbours, predictor), notes


def _positions(teacher: Teacher) -> int:
    config = teacher.model.config
    return config.max_position_embeddings - first_position(config.model_type, config.pad_token_id)


def _note(teacher: Teacher, glove: Path | None) -> str:
    where = "its own embeddings" if glove is None else str(glove)
    return (
        f"The teacher {teacher.name} has no masked-LM head, so that augmentation replaces words by their "
        f"nearest neighbours in {where}, whatever the sentence says."
    )
