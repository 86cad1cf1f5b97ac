from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kdnas_core.data.tokens import chunked, in_chunks, in_pieces


def by_words(text: str, tokens: int) -> list[str]:
    """With words as tokens."""
    ends, at = [], 0
    for word in text.split():
        at = text.index(word, at) + len(word)
        ends.append(at)
    return list(chunked(text, ends, tokens))


def test_a_chunk_ends_with_the_last_sentence_that_ends_in_its_second_half() -> None:
    text = "One. Two three four five. Six seven eight nine ten eleven."
    assert by_words(text, 7) == ["One. Two three four five.", "Six seven eight nine ten eleven."]
    assert by_words("One. Two three four five six seven eight", 4) == [
        "One. Two three four",
        "five six seven eight",
    ]


def test_nothing_is_lost_but_a_short_rest() -> None:
    words = [f"w{number}" for number in range(103)]
    found = by_words(" ".join(words), 10)
    assert " ".join(found).split() == words[:103]  # a rest of three is a quarter of ten, and more
    assert [len(chunk.split()) for chunk in found] == [10] * 10 + [3]
    assert by_words(" ".join(words[:102]), 10)[-1].split()[-1] == "w99"


def test_no_word_is_cut_where_tokens_are_pieces_of_words() -> None:
    text = "abcd efgh ijkl"
    ends = [2, 4, 7, 9, 12, 14]  # each word in two
    assert list(chunked(text, ends, 3)) == ["abcd", "efgh", "ijkl"]


def test_a_word_longer_than_a_chunk_is_cut() -> None:
    assert list(chunked("abcdefgh", [2, 4, 6, 8], 2)) == ["abcd", "efgh"]


def test_a_sentence_of_chinese_ends_without_a_space() -> None:
    text = "今天很好。我们去公园"
    assert list(chunked(text, list(range(1, len(text) + 1)), 6)) == ["今天很好。", "我们去公园"]


def pieces_of(text: str, tokens: int, seed: int) -> list[str]:
    """With words as tokens."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return list(in_pieces(text, ends, tokens, random.Random(seed)))


@pytest.mark.parametrize("seed", range(5))
def test_pieces_hold_all_of_a_text_and_are_of_many_lengths_up_to_the_most(seed: int) -> None:
    rng = random.Random(seed)
    sentences = [" ".join(["word"] * rng.randint(3, 20)) + "." for _ in range(400)]
    found = pieces_of(" ".join(sentences), 64, seed)
    assert " ".join(found) == " ".join(sentences)
    lengths = [len(piece.split()) for piece in found]
    assert max(lengths) <= 64
    by_length = [sum(low < length <= 2 * low for length in lengths) for low in (8, 16, 32)]
    assert min(by_length) > len(lengths) / 6  # drawn alike on a logarithmic scale
    assert sum(piece.endswith(".") for piece in found) > len(found) / 2


def test_short_texts_are_cut_into_pieces_too_and_always_in_the_same_way(tiny_teacher: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    texts = [" ".join(["some more words of a text of ten words here."] * 8), "a few words"]
    found = in_chunks(texts, tokenizer, 64, of_many_lengths=True)
    assert len(found[0]) > 1
    assert found[1] == [texts[1]]
    assert " ".join(found[0]) == texts[0]
    assert in_chunks(texts[:1], tokenizer, 64, of_many_lengths=True) == found[:1]  # whatever else is read


def test_each_chunk_is_read_whole_by_the_teacher(tiny_teacher: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    texts = ["a few words", " ".join(["some more words of a text."] * 40), "words"]
    found = in_chunks(texts, tokenizer, 16)
    assert [len(chunks) > 1 for chunks in found] == [False, True, False]
    assert found[0] == [texts[0]]
    lengths = [len(tokenizer(chunk)["input_ids"]) for chunk in found[1]]
    assert max(lengths) <= 16
    assert " ".join(found[1]) == texts[1]


def test_a_tokenizer_that_does_not_say_where_tokens_are_cuts_nothing(
    tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    text = " ".join(["word"] * 200)
    assert in_chunks([text], tokenizer, 16) == [[text]]
