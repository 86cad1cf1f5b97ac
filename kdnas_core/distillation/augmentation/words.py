"""Finds the words of a text that may be replaced, with their places."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from transformers import PreTrainedTokenizerBase

_STOP_WORDS = """
a about above after again against all am an and any are aren as at be because been before being below
between both but by can could couldn d did didn do does doesn doing don down during each few for from
further had hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn
it its itself just ll m ma me might mightn more most must mustn my myself needn no nor not now o of off on
once only or other our ours ourselves out over own re s same shall shan she should shouldn so some such t
than that the their theirs them themselves then there these they this those through to too under until up
upon ve very was wasn we were weren what when where which while who whom why will with won would wouldn y
you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
JOINERS = "\u200c\u200d"  # inside words of Persian and of India's languages
# Thai to Burmese, Khmer, kana, Han: scripts without spaces between words
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_GOES_ON = "##"  # WordPiece marks pieces that continue a word,
_BEGINS = ("Ġ", "▁")  # byte-level BPE and SentencePiece pieces that begin one

SPACE = "▁"  # before a word, in SentencePiece
Spans = dict[tuple[int, int], int | None]


def is_word(text: str) -> bool:
    """Returns whether a text has only letters, marks and joiners: no digit, no underscore."""
    if text.isalpha():
        return True
    return any(map(str.isalpha, text)) and all(
        sign.isalpha() or sign in JOINERS or unicodedata.category(sign).startswith("M") for sign in text
    )


def whole_words(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[int, str]:
    """Returns the tokens that are whole words, as text by id in ascending order.

    In scripts without spaces between words, every piece counts as a word; in others a single letter does not.

    Args:
        tokenizer: WordPiece, byte-level BPE or SentencePiece.
        rows: of the embedding; later tokens are left out.
    """
    ids = list(range(min(rows, len(tokenizer))))
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    # by count, since each mark can also be text (Ġ is a letter of Maltese)
    mark = max((_GOES_ON, *_BEGINS), key=lambda mark: sum(token.startswith(mark) for token in tokens))
    written = (text.strip() for text in tokenizer.batch_decode([[token] for token in ids]))
    special = set(tokenizer.all_special_ids)
    return {
        number: text
        for number, token, text in zip(ids, tokens, written, strict=True)
        if is_word(text) and number not in special and _is_whole(token, text, mark)
    }


def _is_whole(token: str, text: str, mark: str) -> bool:
    if UNSPACED.match(text):
        return not token.startswith(_GOES_ON)
    return len(text) > 1 and token.startswith(mark) != (mark == _GOES_ON)


def replacements(words: list[str], place: str, count: int) -> tuple[str, ...]:
    """Returns the first `count` different words to replace another, in its case and alphabetical order.

    Args:
        words: best first.
        place: the word to replace; it is excluded in any case.
        count: K.
    """
    different: dict[str, str] = {}
    for word in words:
        different.setdefault(word.casefold(), recased(word, place))
    different.pop(place.casefold(), None)
    return tuple(sorted(list(different.values())[:count]))


def recased(word: str, like: str) -> str:
    """Returns the word in upper or title case if `like` is."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like.istitle() else word


@dataclass(frozen=True)
class Place:
    """The place of a word that may be replaced.

    Attributes:
        start: index of its first character.
        end: index after its last character.
        token: index of its only piece among the text's tokens; None if it has several.
    """

    start: int
    end: int
    token: int | None


@dataclass(frozen=True)
class Reading:
    """A text as the teacher reads it.

    Attributes:
        text: the whole text.
        ids: its first tokens, special tokens included.
        places: of the words in them that may be replaced, in order.
    """

    text: str
    ids: Sequence[int]
    places: Sequence[Place]

    def word(self, place: Place) -> str:
        """Returns the word at a place."""
        return self.text[place.start : place.end]


Occurrence = tuple[Reading, Place]
Candidates = dict[tuple[str, Place], tuple[str, ...]]  # by text and place


def read(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Reading]:
    """Tokenizes texts and finds their words that may be replaced: no stop words, numbers or identifiers.

    Args:
        texts: in any language; in scripts without spaces between words, the tokenizer's pieces are the words.
        tokenizer: a fast one, which gives the characters of a token.
        longest: tokens that are read of a text, special tokens included.
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
    """The characters of each token, without a leading space, and its index.

    The index is None if the token is unknown, or shares its characters with another, as the pieces of one
    character in byte-level BPE. A token that is only a space has an empty span: the token after it is only a
    part of a word.
    """
    spans: Spans = {}
    for index, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        if ids[index] == space != unknown:  # equal if the vocabulary has no such token
            spans[start, start] = None
        elif start < end:
            spans[start, end] = None if (start, end) in spans or ids[index] == unknown else index
    return spans


def _places(text: str, spans: Spans) -> list[Place]:
    ordered = sorted(spans)
    covered = max((end for _, end in ordered), default=0)
    places: list[Place] = []
    for run in _runs().finditer(text):
        if run.end() > covered:  # not fully within the tokens read
            break
        if UNSPACED.search(run.group()):
            places.extend(_pieces(text, run.span(), spans, ordered))
        elif is_word(run.group()) and run.group().casefold() not in STOP_WORDS:
            whole = (run.start(), run.start()) not in spans
            places.append(Place(*run.span(), spans.get(run.span()) if whole else None))
    return places


def _pieces(
    text: str, run: tuple[int, int], spans: Spans, ordered: Sequence[tuple[int, int]]
) -> Iterator[Place]:
    """The words of a run in a script without spaces between words."""
    begin, end = (bisect_left(ordered, (border, 0)) for border in run)
    for span in ordered[begin:end]:
        piece = text[slice(*span)]
        if spans[span] is not None and span[1] <= run[1] and UNSPACED.match(piece) and is_word(piece):
            yield Place(*span, spans[span])


@cache
def _runs() -> re.Pattern[str]:
    r"""Matches letters, digits, the underscore, and marks that `\w` lacks, such as the vowels of Hindi."""
    marks = "".join(sign for sign in map(chr, range(0x20000)) if unicodedata.category(sign).startswith("M"))
    return re.compile(rf"[\w{JOINERS}{marks}]+")
