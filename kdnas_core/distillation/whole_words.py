"""What counts as a word: of a text, among the tokens of a vocabulary, and in which case."""

from __future__ import annotations

import re
import unicodedata

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
# Thai to Burmese, Khmer, kana, Han: between words there are no spaces
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_GOES_ON = "##"  # WordPiece marks a piece that goes on a word,
_BEGINS = ("Ġ", "▁")  # byte-level BPE and SentencePiece one that begins it


def is_word(text: str) -> bool:
    """Whether a text is of letters alone, with their marks and joiners: no digit, no underscore."""
    if text.isalpha():
        return True
    return any(map(str.isalpha, text)) and all(
        sign.isalpha() or sign in JOINERS or unicodedata.category(sign).startswith("M") for sign in text
    )


def whole_words(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[int, str]:
    """The tokens that are whole words, by id in ascending order, and how they are written.

    In scripts without spaces between words, a piece within a run of letters counts as a word; in others one
    letter does not.

    Args:
        tokenizer: WordPiece, byte-level BPE or SentencePiece.
        rows: of the embedding; a token beyond has none.
    """
    ids = list(range(min(rows, len(tokenizer))))
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    # by count: each mark is a word of some other vocabulary too (Ġ is a letter of Maltese)
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


def in_its_place(words: list[str], place: str, count: int) -> tuple[str, ...]:
    """The first `count` different words that can stand for another, in its case and in alphabetical order.

    Args:
        words: best first.
        place: the word they are to stand for, which is none of them, whatever its case.
        count: K.
    """
    different: dict[str, str] = {}
    for word in words:
        different.setdefault(word.casefold(), recased(word, place))
    different.pop(place.casefold(), None)
    return tuple(sorted(list(different.values())[:count]))


def recased(word: str, like: str) -> str:
    """The word in capitals, or with a capital, where another is."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like.istitle() else word
