"""Where the words of a text are that may be replaced by others."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from transformers import PreTrainedTokenizerBase

from kdnas_core.distillation.whole_words import JOINERS, STOP_WORDS, UNSPACED, is_word

SPACE = "▁"  # before a word, in SentencePiece
Spans = dict[tuple[int, int], int | None]


@dataclass(frozen=True)
class Place:
    """Where a word is that may be replaced.

    Attributes:
        start: its first character.
        end: the one after its last.
        token: the index of its only piece among the text's tokens; None where it has several.
    """

    start: int
    end: int
    token: int | None


@dataclass(frozen=True)
class Reading:
    """A text as the teacher reads it.

    Attributes:
        text: all of it.
        ids: tokens of its beginning, special tokens included.
        places: of the words therein that may be replaced, in their order.
    """

    text: str
    ids: Sequence[int]
    places: Sequence[Place]

    def word(self, place: Place) -> str:
        """The word at a place."""
        return self.text[place.start : place.end]


Asked = tuple[Reading, Place]
Candidates = dict[tuple[str, Place], tuple[str, ...]]  # by text and place


def read(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Reading]:
    """Reads texts and finds their words that may be replaced: no stop words, numbers or identifiers.

    Args:
        texts: in any language; in scripts without spaces between words, the tokenizer's pieces are the words.
        tokenizer: one that can tell the characters of a token (`is_fast`).
        longest: tokens of a text, special tokens included; what comes after is not looked at.
    """
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=longest, return_offsets_mapping=True)
    unknown, space = tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids(SPACE)
    return [
        Reading(text, ids, _places(text, _spans(text, ids, offsets, unknown, space)))
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def _spans(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], unknown: object, space: object
) -> Spans:
    """The characters of each token, without a space before them, and its index.

    None in place of the index where a token is unknown, or shares its characters with another, as pieces of
    one character do in byte-level BPE. A space that is a token of its own stands for no character: what
    follows it is but a part of a word.
    """
    spans: Spans = {}
    for index, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        if ids[index] == space != unknown:  # the latter where there is no such token
            spans[start, start] = None
        elif start < end:
            spans[start, end] = None if (start, end) in spans or ids[index] == unknown else index
    return spans


def _places(text: str, spans: Spans) -> list[Place]:
    ordered = sorted(spans)
    covered = max((end for _, end in ordered), default=0)
    found: list[Place] = []
    for run in _runs().finditer(text):
        if run.end() > covered:  # cut off, wholly or in part
            break
        if UNSPACED.search(run.group()):
            found.extend(_pieces(text, run.span(), spans, ordered))
        elif is_word(run.group()) and run.group().casefold() not in STOP_WORDS:
            whole = (run.start(), run.start()) not in spans
            found.append(Place(*run.span(), spans.get(run.span()) if whole else None))
    return found


def _pieces(
    text: str, run: tuple[int, int], spans: Spans, ordered: Sequence[tuple[int, int]]
) -> Iterator[Place]:
    """Words in a script without spaces between them."""
    begin, end = (bisect_left(ordered, (border, 0)) for border in run)
    for span in ordered[begin:end]:
        piece = text[slice(*span)]
        if spans[span] is not None and span[1] <= run[1] and UNSPACED.match(piece) and is_word(piece):
            yield Place(*span, spans[span])


@cache
def _runs() -> re.Pattern[str]:
    r"""Letters, digits, the underscore, and the marks that `\w` leaves out, such as the vowels of Hindi."""
    marks = "".join(sign for sign in map(chr, range(0x20000)) if unicodedata.category(sign).startswith("M"))
    return re.compile(rf"[\w{JOINERS}{marks}]+")
