from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from kdnas_core.data import tokens as module
from kdnas_core.data.tokens import FEWEST_WORDS, Passage, with_pairs

SEEDS = range(4)


def is_adjacent(passage: Passage, text: str) -> bool:
    """Whether a pair is one text cut in two."""
    return isinstance(passage, tuple) and " ".join(passage) == " ".join(text.split())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_share_every_text_stays_as_it_is(seed: int, texts: list[str]) -> None:
    assert with_pairs(texts, 0.0, seed) == texts


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_share_of_one_every_text_begins_a_pair(seed: int, texts: list[str]) -> None:
    passages = with_pairs(texts, 1.0, seed)
    assert len(passages) == len(texts)
    assert all(isinstance(passage, tuple) for passage in passages)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_about_the_share_that_is_asked_for_becomes_pairs(share: float, texts: list[str]) -> None:
    pairs = sum(isinstance(passage, tuple) for passage in with_pairs(texts, share, 0))
    assert pairs / len(texts) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_texts_keep_their_order_and_each_pair_begins_with_its_own_text(
    share: float, seed: int, texts: list[str]
) -> None:
    for passage, text in zip(with_pairs(texts, share, seed), texts, strict=True):
        if isinstance(passage, str):
            assert passage == text
        else:
            assert passage[0] == text or is_adjacent(passage, text)


def test_the_same_seed_gives_the_same_pairs_and_another_others(texts: list[str]) -> None:
    random.seed(1)
    state = random.getstate()
    first = with_pairs(texts, 0.5, 3)
    assert random.getstate() == state
    random.seed(2)
    np.random.seed(2)
    assert with_pairs(texts, 0.5, 3) == first
    assert with_pairs(texts, 0.5, 4) != first


def test_the_texts_that_were_given_are_left_alone(texts: list[str]) -> None:
    given = list(texts)
    with_pairs(given, 1.0, 0)
    assert given == texts


def test_about_a_third_of_pairs_are_halves_of_a_text(texts: list[str]) -> None:
    long = [text for text in texts if len(text.split()) >= FEWEST_WORDS]
    passages = with_pairs(long, 1.0, 0)
    halves = sum(is_adjacent(passage, text) for passage, text in zip(passages, long, strict=True))
    assert halves / len(long) == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_pair_reaches_outside_of_the_texts(seed: int, texts: list[str]) -> None:
    some = texts[:50]
    for passage, text in zip(with_pairs(some, 1.0, seed), some, strict=True):
        assert is_adjacent(passage, text) or passage[1] in some


# Of each kind


def only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair is of one kind."""

    class OneKind(random.Random):
        def choice(self, kinds: object) -> object:  # type: ignore[override]
            return kind

    monkeypatch.setattr("kdnas_core.data.tokens.random.Random", OneKind)


def test_two_halves_are_the_whole_text(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only("adjacent", monkeypatch)
    long = [text for text in texts if len(text.split()) >= FEWEST_WORDS]
    for passage, text in zip(with_pairs(long, 1.0, 0), long, strict=True):
        assert isinstance(passage, tuple)
        assert " ".join(passage) == " ".join(text.split())
        assert all(passage)


def test_a_text_is_cut_after_the_sentence_that_ends_nearest_to_its_middle_or_else_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only("adjacent", monkeypatch)
    given = [
        "One. Two three four five. Six seven eight nine ten.",
        "Is it? No one here knows it or will tell.",
        "one two three four five six seven eight nine",
        "one two three four five six seven eight.",  # the end of the whole is no place to cut
    ]
    assert with_pairs(given, 1.0, 0) == [
        ("One. Two three four five.", "Six seven eight nine ten."),
        ("Is it?", "No one here knows it or will tell."),
        ("one two three four", "five six seven eight nine"),
        ("one two three four", "five six seven eight."),
    ]


def test_a_text_too_short_for_halves_gets_another_text(monkeypatch: pytest.MonkeyPatch) -> None:
    only("adjacent", monkeypatch)
    given = ["a few words", "some more of them", "the third"]
    for passage, text in zip(with_pairs(given, 1.0, 0), given, strict=True):
        assert isinstance(passage, tuple)
        assert passage[0] == text
        assert passage[1] in given


def test_a_near_text_is_the_most_similar_other_one_and_shares_a_word(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only("near", monkeypatch)
    given = texts[:120]
    vectors = TfidfVectorizer(token_pattern=r"\w+").fit_transform(given).toarray()
    alike = vectors @ vectors.T - 2 * np.eye(len(given))
    for index, passage in enumerate(with_pairs(given, 1.0, 0)):
        assert isinstance(passage, tuple)
        assert passage[0] == given[index]
        assert passage[1] != given[index]
        assert words_of(passage[0]) & words_of(passage[1])
        assert alike[index, given.index(passage[1])] == pytest.approx(alike[index].max())


def test_a_near_text_is_looked_for_in_the_window_alone(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only("near", monkeypatch)
    monkeypatch.setattr(module, "WINDOW", 40)
    given = texts[:100]  # the last window is smaller
    for index, passage in enumerate(with_pairs(given, 1.0, 0)):
        start = index // 40 * 40
        assert passage[1] in given[start : start + 40]
        assert passage[1] != given[index]


def test_a_text_that_shares_no_word_gets_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    only("near", monkeypatch)
    given = ["alpha beta", "beta gamma", "delta"]
    passages = with_pairs(given, 1.0, 0)
    assert passages[:2] == [("alpha beta", "beta gamma"), ("beta gamma", "alpha beta")]
    assert passages[2][0] == "delta"
    assert passages[2][1] in given


def test_any_text_is_as_likely_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    only("any", monkeypatch)
    given = [f"text {number}" for number in range(10)]
    seconds = Counter(passage[1] for seed in range(200) for passage in with_pairs(given, 1.0, seed))
    assert set(seconds) == set(given)
    assert max(seconds.values()) < 1.4 * min(seconds.values())


def test_a_text_is_not_paired_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    only("any", monkeypatch)
    given = [f"text {number}" for number in range(4)]
    for seed in range(20):
        assert all(passage[0] != passage[1] for passage in with_pairs(given, 1.0, seed))


# What leaves little to pair


@pytest.mark.parametrize("kind", ["adjacent", "near", "any"])
@pytest.mark.parametrize(
    "given",
    [
        [],
        ["one text alone"],
        ["one text alone that has words enough to be cut into two halves of some length"],
        ["", " ", "\t"],
        ["...", "!!", "?"],
        ["a", "b", "c"],
        ["the same words", "the same words", "the same words"],
        ["", "a text of words", "..."],
    ],
    ids=["none", "one", "one long", "blank", "no word", "letters", "alike", "mixed"],
)
def test_however_little_there_is_to_pair_each_text_begins_its_pair(
    given: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(kind, monkeypatch)
    passages = with_pairs(given, 1.0, 0)
    assert len(passages) == len(given)
    for passage, text in zip(passages, given, strict=True):
        assert isinstance(passage, tuple)
        assert is_adjacent(passage, text) or (passage[0] == text and passage[1] in given)
