"""Long texts in chunks that a teacher can read whole: nothing after the first tokens is thrown away."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

TOKENIZED_AT_ONCE = 1_000  # texts
SHORTEST = 0.25  # of the tokens of a whole chunk: a shorter rest is left out
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？।؟]")


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
