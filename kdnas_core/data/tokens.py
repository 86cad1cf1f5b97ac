"""Prepares texts for a model: chunks, pairs of segments, masked words, batches of similar length."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import PreTrainedTokenizerBase

from kdnas_core.errors import BadInput

TOKENIZED_AT_ONCE = 1_000  # texts
FEWEST_TOKENS = 8  # drawn for a piece
SHORTEST = 0.25  # of a full chunk's tokens: a shorter last chunk is dropped
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？।؟]")

Passage = str | tuple[str, str]  # a text, or a pair of sentences

WINDOW = 1_000  # texts compared for similarity at once; the cost grows with its square
FEWEST_WORDS = 8  # of a text that is cut into two segments

NOT_HIDDEN = -100  # label of a token that is not predicted, as in transformers and torch
SHARE = 0.15  # of all words (BERT, arXiv 1810.04805, section 3.1)
MASKED, REPLACED = 0.8, 0.1  # shares of the selected words; the others are left unchanged

Ids = NDArray[np.int64]

BUCKET = 50  # batches; texts are sorted by length within a bucket


def chunked(text: str, ends: Sequence[int], tokens: int) -> Iterator[str]:
    """Cuts a text into chunks.

    A chunk ends at the last sentence end in its second half, else between two words, else anywhere.

    Args:
        text: of any length.
        ends: the end of each token, in characters.
        tokens: the most tokens of a chunk, without special tokens.
    """
    begin, first = 0, 0
    while first < len(ends):
        last = min(first + tokens, len(ends))
        if last == len(ends):
            end = len(text)
        else:
            end = _end(text, begin, ends[first + (tokens - 1) // 2], ends[last - 1])
        if begin == 0 or last - first >= SHORTEST * tokens:
            yield text[begin:end].strip()
        begin, first = end, max(first + 1, bisect_left(ends, end + 1))


def _end(text: str, begin: int, middle: int, most: int) -> int:
    """The end of a chunk that begins at `begin` and ends at `most` at the latest."""
    sentences = [
        match.end() for match in _SENTENCE_END.finditer(text, middle, most + 1) if match.end() <= most
    ]
    if sentences:
        return sentences[-1]
    if text[most : most + 1].isspace():
        return most
    space = max(text.rfind(blank, begin + 1, most) for blank in " \n\t")
    return space if space > begin else most


def in_pieces(text: str, ends: Sequence[int], tokens: int, rng: random.Random) -> Iterator[str]:
    """Cuts a text into pieces of many lengths, log-uniform from `FEWEST_TOKENS` to the most.

    A piece ends as a chunk does, so that many are parts of a sentence, and some are several sentences.
    Nothing is dropped.

    Args:
        text, ends, tokens: as for `chunked`.
        rng: draws the lengths.
    """
    begin, first = 0, 0
    while first < len(ends):
        drawn = min(tokens, round(FEWEST_TOKENS * (tokens / FEWEST_TOKENS) ** rng.random()))
        last = first + drawn
        if last >= len(ends):
            end = len(text)
        else:
            end = _end(text, begin, ends[first + (drawn - 1) // 2], ends[last - 1])
        yield text[begin:end].strip()
        begin, first = end, max(first + 1, bisect_left(ends, end + 1))


def in_chunks(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    of_many_lengths: bool = False,
) -> list[list[str]]:
    """Cuts each text into chunks; a text that is short enough is its own chunk.

    Args:
        texts: of any length.
        tokenizer: the teacher's; without offsets (a slow tokenizer) no text is cut.
        sequence_length: in tokens, special tokens included.
        of_many_lengths: whether texts are cut into pieces of many lengths, short texts too (`in_pieces`).
    """
    chunks = [[text] for text in texts]
    room = sequence_length - tokenizer.num_special_tokens_to_add()
    # a token has at least a byte
    fits = FEWEST_TOKENS if of_many_lengths else room
    long = [index for index, text in enumerate(texts) if len(text.encode()) > fits]
    if not tokenizer.is_fast or room < 1:
        return chunks
    for start in range(0, len(long), TOKENIZED_AT_ONCE):
        indices = long[start : start + TOKENIZED_AT_ONCE]
        encoded = tokenizer(
            [texts[index] for index in indices],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,  # no warning about texts longer than the model's maximum: they are cut here
        )
        for index, offsets in zip(indices, encoded["offset_mapping"], strict=True):
            if of_many_lengths and offsets:
                rng = random.Random(texts[index])  # so that a text is cut alike among others
                chunks[index] = list(in_pieces(texts[index], [end for _, end in offsets], room, rng))
            elif len(offsets) > room:
                chunks[index] = list(chunked(texts[index], [end for _, end in offsets], room))
    return chunks


def with_pairs(texts: Sequence[str], share: float, seed: int) -> list[Passage]:
    """Returns the texts in order, a share of them as the first segment of a pair.

    A third of the pairs are the two halves of a text (adjacent, as in BERT's next-sentence prediction, arXiv
    1810.04805, section 3.1), a third a text and the most similar text in its window by TF-IDF, and a third a
    text and a random one. A text too short to halve is paired with a random one.

    Args:
        texts: of one split, so that no pair joins two splits.
        share: of the texts that become pairs, 0 to 1.
        seed: selects the texts and their partners.
    """
    rng = random.Random(seed)
    chosen = [index for index in range(len(texts)) if rng.random() < share]
    passages: list[Passage] = list(texts)
    kinds = {index: rng.choice(("adjacent", "near", "any")) for index in chosen}
    near = _nearest(texts, [index for index, kind in kinds.items() if kind == "near"])
    for index, kind in kinds.items():
        halves = _halves(texts[index]) if kind == "adjacent" else None
        # never the text itself, unless there is only one
        any_other = (index + rng.randrange(1, max(2, len(texts)))) % len(texts)
        passages[index] = halves or (texts[index], texts[near.get(index, any_other)])
    return passages


def _halves(text: str) -> tuple[str, str] | None:
    """Cuts a text at the sentence end nearest to its middle, else at its middle word; None if short."""
    words = text.split()
    if len(words) < FEWEST_WORDS:
        return None
    middle = len(words) // 2
    ends = [place for place, word in enumerate(words[:-1], 1) if word[-1] in ".!?"]
    cut = min(ends, key=lambda place: abs(place - middle), default=middle)
    return " ".join(words[:cut]), " ".join(words[cut:])


def _nearest(texts: Sequence[str], wanted: Sequence[int]) -> dict[int, int]:
    """The most similar other text in the window of each; left out where no word is shared."""
    nearest: dict[int, int] = {}
    for start in range(0, len(texts), WINDOW):
        inside = [index for index in wanted if start <= index < start + WINDOW]
        window = texts[start : start + WINDOW]
        if not inside or not any(text.strip() for text in window):
            continue
        try:
            vectors = TfidfVectorizer(token_pattern=r"\w+").fit_transform(window)
        except ValueError:  # no word in the window
            continue
        alike = (vectors[[index - start for index in inside]] @ vectors.T).toarray()
        alike[np.arange(len(inside)), [index - start for index in inside]] = 0.0
        best = alike.argmax(1)
        nearest |= {
            index: start + int(place)
            for index, place, row in zip(inside, best, alike, strict=True)
            if row[place] > 0
        }
    return nearest


def hide_words(ids: Ids, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> tuple[Ids, Ids]:
    """Masks 15% of the tokens as BERT does: 80% become the mask token, 10% another token of the texts.

    The other token is drawn from the texts instead of the vocabulary, so that no new word enters.

    Args:
        ids: (tokens,), special tokens included; these are never masked.
        tokenizer: with a mask token.
        seed: selects the tokens.

    Returns:
        The masked ids, and labels: the original token at each masked place, NOT_HIDDEN elsewhere.

    Raises:
        BadInput: the tokenizer has no mask token, or knows no word of the texts.
    """
    check_mask_token(tokenizer)
    rng = np.random.default_rng(seed)
    words = np.flatnonzero(~np.isin(ids, tokenizer.all_special_ids))
    if not len(words):
        raise BadInput(
            "The teacher's tokenizer knows no word of these texts, so that none can be hidden; name a corpus "
            "in a language of the teacher's."
        )
    chosen = rng.permutation(words)[: max(1, round(SHARE * len(words)))]
    labels = np.full_like(ids, NOT_HIDDEN)
    labels[chosen] = ids[chosen]
    fate = rng.random(len(chosen))
    hidden = ids.copy()
    hidden[chosen[fate < MASKED]] = tokenizer.mask_token_id
    replaced = chosen[(fate >= MASKED) & (fate < MASKED + REPLACED)]
    hidden[replaced] = rng.choice(ids[words], len(replaced))
    return hidden, labels


def check_mask_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that cannot mask a word.

    Raises:
        BadInput: it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise BadInput(
            "The teacher's tokenizer has no mask token, which masked-LM and prediction losses need; "
            "choose a recipe without them, such as 'kdnas' or 'minilmv2'."
        )


def by_length(lengths: ArrayLike, size: int, texts: Sequence[int] | None = None) -> list[list[int]]:
    """Returns batches of text indices, each text once, the shortest first.

    Args:
        lengths: of all texts, in tokens.
        size: of a batch, in texts.
        texts: the indices to batch; all by default.
    """
    every = np.asarray(lengths)
    chosen = np.arange(len(every)) if texts is None else np.array(list(texts), dtype=np.int64)
    order = chosen[np.argsort(every[chosen], kind="stable")]
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


def passes(lengths: ArrayLike, size: int, seed: int) -> Iterator[list[list[int]]]:
    """Yields the batches of each pass over all texts; batches and order differ from pass to pass.

    Args:
        lengths: of all texts, in tokens.
        size: of a batch, in texts.
        seed: of the order.
    """
    every, rng = np.asarray(lengths), random.Random(seed)
    while True:
        order = rng.sample(range(len(every)), len(every))
        buckets = (order[start : start + size * BUCKET] for start in range(0, len(order), size * BUCKET))
        batches = [batch for bucket in buckets for batch in by_length(every, size, bucket)]
        yield rng.sample(batches, len(batches))


def endless(lengths: ArrayLike, size: int, seed: int) -> Iterator[list[int]]:
    """Yields the batches of all passes, one by one; arguments as for `passes`."""
    return chain.from_iterable(passes(lengths, size, seed))
