from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kdnas_core.data.tokens import FEWEST_TOKENS, chunked, in_chunks, in_sentences


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


def sentences_of(text: str, tokens: int, seed: int) -> list[str]:
    """With words as tokens."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return list(in_sentences(text, ends, tokens, random.Random(seed)))


@pytest.mark.parametrize("seed", range(5))
def test_runs_of_sentences_are_whole_and_of_many_lengths_and_hold_all_of_a_text(seed: int) -> None:
    rng = random.Random(seed)
    sentences = [" ".join(["word"] * rng.randint(3, 20)) + "." for _ in range(200)]
    found = sentences_of(" ".join(sentences), 64, seed)
    assert " ".join(found) == " ".join(sentences)
    lengths = [len(run.split()) for run in found]
    assert all(run.endswith(".") for run in found)
    assert all(length >= FEWEST_TOKENS for length in lengths[:-1])
    assert max(lengths) <= 64
    assert min(lengths[:-1]) < 20
    assert max(lengths) > 40


def test_a_sentence_longer_than_a_run_is_cut_between_words() -> None:
    found = sentences_of(" ".join(f"w{number}" for number in range(50)), 16, 0)
    assert " ".join(found).split() == [f"w{number}" for number in range(50)]
    assert max(len(run.split()) for run in found) <= 16


def test_short_texts_are_cut_into_sentences_too_and_always_in_the_same_way(tiny_teacher: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    texts = [" ".join(["some more words of a text of ten words here."] * 6), "a few words"]
    found = in_chunks(texts, tokenizer, 128, by_sentences=True)
    assert len(found[0]) > 1
    assert found[1] == [texts[1]]
    assert " ".join(found[0]) == texts[0]
    assert in_chunks(texts, tokenizer, 128, by_sentences=True) == found
    assert in_chunks(texts, tokenizer, 128)[0] != found[0]


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
