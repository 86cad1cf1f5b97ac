"""Predicts replacements of a word with the teacher's masked-LM.

TinyBERT's code runs the masked-LM once a word, on the masked sentence followed by the original. Here masked
sentences run in batches, without the original: masked-LMs are trained on such input (RoBERTa's family reads
no such pairs), the masked word is not shown, and it takes half the time.
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
from kdnas_core.distillation.augmentation.words import Candidates, Occurrence, replacements, whole_words
from kdnas_core.hardware import compute_device, moved
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary

BATCH = 2048  # tokens, padding included


@dataclass(frozen=True)
class Predictor:
    """A masked-LM that predicts whole words.

    Attributes:
        model: the teacher, or a copy of it in another dtype.
        head: in float32, for whole words only.
        words: (W,) the whole words.
        mask: id of the mask token.
        pad: id of the padding.
    """

    model: PreTrainedModel
    head: TeacherHead
    words: Sequence[str]
    mask: int
    pad: int


def predictor_of(teacher: Teacher, head: TeacherHead, dtype: torch.dtype | None) -> Predictor:
    """Makes the predictor of a teacher with its masked-LM head.

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
    """Copies the model; autocast would cast all frozen weights again in each batch."""
    if dtype is None:
        return model
    copied: Any = copy.deepcopy(model)
    return copied.to(dtype)


def predict(predictor: Predictor, words: Sequence[Occurrence], count: int) -> Candidates:
    """Returns the `count` likeliest words at each place, in alphabetical order.

    The original word is excluded. Each place is masked by itself.

    Args:
        predictor: the masked-LM.
        words: occurrences of words of one piece.
        count: K.
    """
    candidates: Candidates = {}
    with moved(predictor.model), torch.inference_mode():
        for batch in _batches(words):
            scores = _scores(predictor, batch)
            # more than `count`, since the word itself and words that differ only in case are dropped
            best = scores.topk(min(3 * (count + 1), len(predictor.words))).indices.tolist()
            for (reading, place), row in zip(batch, best, strict=True):
                likely = [predictor.words[index] for index in row]
                candidates[reading.text, place] = replacements(likely, reading.word(place), count)
    return candidates


def _batches(words: Sequence[Occurrence]) -> Iterator[Sequence[Occurrence]]:
    """Batches of similar length, the longest first, with little padding."""
    ordered = sorted(words, key=lambda word: len(word[0].ids), reverse=True)
    start = 0
    while start < len(ordered):
        stop = start + max(1, BATCH // len(ordered[start][0].ids))
        yield ordered[start:stop]
        start = stop


def _scores(predictor: Predictor, batch: Sequence[Occurrence]) -> torch.Tensor:
    """(places, W) logits at the masked places of a batch whose first sentence is the longest."""
    device = compute_device()
    ids = torch.full((len(batch), len(batch[0][0].ids)), predictor.pad)
    mask = torch.zeros_like(ids)
    for row, (reading, place) in enumerate(batch):
        ids[row, : len(reading.ids)] = torch.tensor(reading.ids)
        ids[row, place.token] = predictor.mask
        mask[row, : len(reading.ids)] = 1
    places = torch.tensor([place.token for _, place in batch])
    # attention without a mask is faster
    attended = None if mask.all() else mask.to(device)
    states = predictor.model(input_ids=ids.to(device), attention_mask=attended).last_hidden_state
    return predictor.head.logits(states[torch.arange(len(batch)), places].float().cpu())
