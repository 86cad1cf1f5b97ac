"""Which words the teacher's masked-LM holds likely in a word's place.

TinyBERT's code asks the masked-LM once a word, with the original sentence after the masked one. Here many
masked sentences are asked about at once, and each stands alone: that is what a masked-LM has learned to read
(RoBERTa's family reads no such pairs), it does not show the word that is to be guessed, and it takes half the
time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdnas_core.data.tokens import check_mask_token
from kdnas_core.distillation.augmentation.words import Asked, Candidates, in_its_place, whole_words
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary

BATCH = 2048  # tokens, padding included


@dataclass(frozen=True)
class Predictor:
    """A masked-LM that says which words may stand at a place.

    Attributes:
        model: the teacher, or a copy of it in another dtype.
        head: in float32, and for the whole words alone.
        words: (W,) those words.
        mask: id of the mask token.
        pad: id of the padding.
    """

    model: PreTrainedModel
    head: TeacherHead
    words: Sequence[str]
    mask: int
    pad: int


def predictor_of(teacher: Teacher, head: TeacherHead, dtype: torch.dtype | None) -> Predictor:
    """A teacher with its masked-LM head.

    Args:
        teacher: with a mask token.
        head: for all of its tokens.
        dtype: of the teacher's layers; None for float32.

    Raises:
        BadInput: the tokenizer has no mask token.
        ValueError: the head is not for all tokens.
    """
    tokens: int = teacher.model.config.vocab_size
    if len(head.table) != tokens:
        raise ValueError(f"the head is for {len(head.table)} of {tokens} tokens")
    check_mask_token(teacher.tokenizer)
    words = whole_words(teacher.tokenizer, tokens)
    whole = head.only(Vocabulary(np.array(list(words), dtype=np.int64), np.arange(tokens)))
    mask: Any = teacher.tokenizer.mask_token_id
    pad: Any = teacher.tokenizer.pad_token_id
    return Predictor(_cast(teacher.model, dtype), whole, list(words.values()), mask, pad)


def _cast(model: PreTrainedModel, dtype: torch.dtype | None) -> PreTrainedModel:
    """A copy rather than autocast, which would cast all the frozen weights anew in each batch."""
    if dtype is None:
        return model
    copied: Any = copy.deepcopy(model)
    return copied.to(dtype)


@torch.inference_mode()
def predict(predictor: Predictor, asked: Sequence[Asked], count: int) -> Candidates:
    """The `count` words that the masked-LM holds likeliest at each place, in alphabetical order.

    Never the word that is there. Each place is masked alone.

    Args:
        predictor: the masked-LM.
        asked: places of words of one piece.
        count: K.
    """
    found: Candidates = {}
    for batch in _batches(asked):
        scores = _scores(predictor, batch)
        # some are left out: the word itself, and the second of two that differ in case alone
        best = scores.topk(min(3 * (count + 1), len(predictor.words))).indices.tolist()
        for (reading, place), row in zip(batch, best, strict=True):
            likely = [predictor.words[index] for index in row]
            found[reading.text, place] = in_its_place(likely, reading.word(place), count)
    return found


def _batches(asked: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    """Ordered by length, so that hardly anything is padding."""
    ordered = sorted(asked, key=lambda one: len(one[0].ids), reverse=True)
    start = 0
    while start < len(ordered):
        stop = start + max(1, BATCH // len(ordered[start][0].ids))
        yield ordered[start:stop]
        start = stop


def _scores(predictor: Predictor, batch: Sequence[Asked]) -> torch.Tensor:
    """(places, W) logits at the masked places alone, of a batch whose first is the longest."""
    ids = torch.full((len(batch), len(batch[0][0].ids)), predictor.pad)
    mask = torch.zeros_like(ids)
    for row, (reading, place) in enumerate(batch):
        ids[row, : len(reading.ids)] = torch.tensor(reading.ids)
        ids[row, place.token] = predictor.mask
        mask[row, : len(reading.ids)] = 1
    places = torch.tensor([place.token for _, place in batch])
    # attention without a mask is faster
    states = predictor.model(input_ids=ids, attention_mask=None if mask.all() else mask).last_hidden_state
    return predictor.head.logits(states[torch.arange(len(batch)), places].float())
