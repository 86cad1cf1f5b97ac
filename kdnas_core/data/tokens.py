"""Texts before they are read: cut into chunks, joined to pairs, words hidden, in batches of like length."""

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
SHORTEST = 0.25  # of the tokens of a whole chunk: a shorter rest is left out
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？।؟]")

Passage = str | tuple[str, str]  # a text, or a pair of sentences

WINDOW = 1_000  # texts among which a near one is looked for: the comparisons grow with its square
FEWEST_WORDS = 8  # of a text that is cut into two segments

NOT_HIDDEN = -100  # label of a token that is not to be guessed; what transformers and torch use too
SHARE = 0.15  # of all words (BERT, arXiv 1810.04805, section 3.1)
MASKED, REPLACED = 0.8, 0.1  # of those; the rest stays as it is

Ids = NDArray[np.int64]

BUCKET = 50  # batches whose texts are sorted by length together


def chunked(text: str, ends: Sequence[int], tokens: int) -> Iterator[str]:
    """Cuts a text into chunks.

    A chunk ends with its last sentence that ends in its second half, else between two words, else anywhere.

    Args:
        text: of any length.
        ends: where each of its tokens ends, in characters.
        tokens: of a chunk at most, without special tokens.
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
    """Where a chunk ends that begins at `begin`, and holds the characters to `most` at the most."""
    sentences = [
        found.end() for found in _SENTENCE_END.finditer(text, middle, most + 1) if found.end() <= most
    ]
    if sentences:
        return sentences[-1]
    if text[most : most + 1].isspace():
        return most
    space = max(text.rfind(blank, begin + 1, most) for blank in " \n\t")
    return space if space > begin else most


def in_chunks(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, sequence_length: int
) -> list[list[str]]:
    """The chunks of each text; of one that is short enough the text itself.

    Args:
        texts: of any length.
        tokenizer: of the teacher; one that does not say where a token stands cuts no text.
        sequence_length: in tokens, special tokens included.
    """
    chunks = [[text] for text in texts]
    room = sequence_length - tokenizer.num_special_tokens_to_add()
    # a token has at least a byte
    long = [index for index, text in enumerate(texts) if len(text.encode()) > room]
    if not tokenizer.is_fast or room < 1:
        return chunks
    for start in range(0, len(long), TOKENIZED_AT_ONCE):
        some = long[start : start + TOKENIZED_AT_ONCE]
        encoded = tokenizer(
            [texts[index] for index in some],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,  # no warning of texts that are longer than the model reads: they are cut here
        )
        for index, offsets in zip(some, encoded["offset_mapping"], strict=True):
            if len(offsets) > room:
                chunks[index] = list(chunked(texts[index], [end for _, end in offsets], room))
    return chunks


def with_pairs(texts: Sequence[str], share: float, seed: int) -> list[Passage]:
    """The texts in their order, some of them as the first segment of a pair.

    A third of the pairs are the two halves of one text (adjacent, as BERT's next-sentence pairs are, arXiv
    1810.04805, section 3.1), a third a text with the most similar of the texts around it by TF-IDF, and a
    third a text with any other. A text too short for two halves gets any other.

    Args:
        texts: of one split, so that no pair joins two splits.
        share: of the texts that begin a pair, 0 to 1.
        seed: which texts, and which others.
    """
    rng = random.Random(seed)
    chosen = [index for index in range(len(texts)) if rng.random() < share]
    passages: list[Passage] = list(texts)
    kinds = {index: rng.choice(("adjacent", "near", "any")) for index in chosen}
    near = _nearest(texts, [index for index, kind in kinds.items() if kind == "near"])
    for index, kind in kinds.items():
        halves = _halves(texts[index]) if kind == "adjacent" else None
        # of the others; a text alone has none but itself
        any_other = (index + rng.randrange(1, max(2, len(texts)))) % len(texts)
        passages[index] = halves or (texts[index], texts[near.get(index, any_other)])
    return passages


def _halves(text: str) -> tuple[str, str] | None:
    """A text cut after the sentence that ends nearest to its middle, or at its middle word; None if short."""
    words = text.split()
    if len(words) < FEWEST_WORDS:
        return None
    middle = len(words) // 2
    ends = [place for place, word in enumerate(words[:-1], 1) if word[-1] in ".!?"]
    cut = min(ends, key=lambda place: abs(place - middle), default=middle)
    return " ".join(words[:cut]), " ".join(words[cut:])


def _nearest(texts: Sequence[str], wanted: Sequence[int]) -> dict[int, int]:
    """The most similar other text in the window of each; none where no word is shared."""
    found: dict[int, int] = {}
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
        found |= {
            index: start + int(place)
            for index, place, row in zip(inside, best, alike, strict=True)
            if row[place] > 0
        }
    return found


def hide_words(ids: Ids, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> tuple[Ids, Ids]:
    """Hides 15% of the tokens as BERT does: 80% become the mask token, 10% another token of the texts.

    Another token of these texts rather than of the vocabulary, so that no word comes in that they lack.

    Args:
        ids: (tokens,), special tokens included; those are never hidden.
        tokenizer: with a mask token.
        seed: decides which.

    Returns:
        ids with words hidden, and labels: the word at each hidden place, NOT_HIDDEN elsewhere.

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
    """Refuse a tokenizer that cannot hide a word.

    Raises:
        BadInput: it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise BadInput(
            "The teacher's tokenizer has no mask token, which masked-LM and prediction losses need; "
            "choose a recipe without them, such as 'kdnas' or 'minilmv2'."
        )


def by_length(lengths: ArrayLike, size: int, texts: Sequence[int] | None = None) -> list[list[int]]:
    """Each text once, the shortest first.

    Args:
        lengths: of all texts, in tokens.
        size: of a batch, in texts.
        texts: which; all if left out.
    """
    every = np.asarray(lengths)
    chosen = np.arange(len(every)) if texts is None else np.array(list(texts), dtype=np.int64)
    order = chosen[np.argsort(every[chosen], kind="stable")]
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


def passes(lengths: ArrayLike, size: int, seed: int) -> Iterator[list[list[int]]]:
    """The batches of one pass over all texts after another: each time others, in another order.

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
    """The batches of all passes in a row; arguments as for `passes`."""
    return chain.from_iterable(passes(lengths, size, seed))
