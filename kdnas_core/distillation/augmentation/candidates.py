"""What may stand in a word's place: what the teacher predicts there, or the nearest neighbours of the word.

The rule of TinyBERT's data augmentation (arXiv 1909.10351, algorithm 1): the masked-LM's best words for a
word of one piece, neighbours for a word of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from kdnas_core.distillation.augmentation.neighbours import (
    Near,
    Neighbours,
    nearest,
    neighbours_in_embeddings,
    neighbours_in_glove,
)
from kdnas_core.distillation.augmentation.prediction import Predictor, predict, predictor_of
from kdnas_core.distillation.augmentation.words import Asked, Candidates, Reading, read
from kdnas_core.errors import BadInput
from kdnas_core.models.families import first_position
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.teacher import Teacher


@dataclass(frozen=True)
class WordCandidates:
    """Gives candidates for words.

    Attributes:
        tokenizer: the teacher's.
        longest: tokens of a text that are looked at, special tokens included.
        neighbours: for words of several pieces.
        predictor: for words of one piece; None where the teacher predicts no words: all get neighbours then.
    """

    tokenizer: PreTrainedTokenizerBase
    longest: int
    neighbours: Neighbours
    predictor: Predictor | None

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """The texts with the places of words that may be replaced."""
        return read(texts, self.tokenizer, self.longest)

    def candidates(self, asked: Sequence[Asked], count: int, near: Near) -> Candidates:
        """At most `count` candidates for each place that is asked for, in alphabetical order.

        Whatever else is in the batch they are the same, to within the rounding of floats.

        Args:
            asked: places, each once.
            count: K.
            near: neighbours found before, with this `count`; it grows by those of new words.
        """
        whole = [one for one in asked if one[1].token is not None] if self.predictor else []
        found = predict(self.predictor, whole, count) if self.predictor else {}
        others = [(reading, place) for reading, place in asked if (reading.text, place) not in found]
        words = dict.fromkeys(reading.word(place) for reading, place in others)
        near |= nearest(self.neighbours, [word for word in words if word not in near], count)
        return found | {(reading.text, place): near[reading.word(place)] for reading, place in others}


def augmenter_for(
    teacher: Teacher,
    head: TeacherHead | None,
    glove: Path | None = None,
    sequence_length: int = 128,
    dtype: torch.dtype | None = None,
) -> tuple[WordCandidates, list[str]]:
    """What gives candidates with a teacher, and notes for the user: a sentence each.

    Args:
        teacher: whose tokenizer, and whose model under the head.
        head: its masked-LM head, for all of its tokens; None where there is none.
        glove: a text file of word vectors; None for the teacher's own embeddings.
        sequence_length: tokens of a text that are looked at; the teacher would see no more.
        dtype: to compute in, such as `precision.autocast_dtype` says; None for float32.

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
