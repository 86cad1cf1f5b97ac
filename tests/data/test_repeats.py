from __future__ import annotations

import pytest

from kdnas_core.data.splits import NearDuplicates

HELD_OUT = "The gradient of a scalar with respect to each of its inputs, summed over the batch."


@pytest.mark.parametrize(
    "text",
    [
        HELD_OUT,
        "the GRADIENT of a scalar, with respect to each of its inputs; summed over the batch",
        "The gradient of a scalar with respect to each of its inputs, averaged over the batch.",
        f"Returns what was asked for. {HELD_OUT} Nothing is changed in place, and no graph is kept.",
        "The gradient of a scalar with respect to each of its inputs.",
    ],
)
def test_the_same_text_and_one_that_holds_most_of_it_are_repeats(text: str) -> None:
    assert text in NearDuplicates(["Something else altogether, of which no five words recur.", HELD_OUT])


@pytest.mark.parametrize(
    "text",
    [
        "The gradient of a scalar with respect to the weights alone is kept in a buffer until it is read.",
        "A text about the weather.",
        "The batch over summed inputs its of each to respect with scalar a of gradient the.",
        "batch",
        "",
        "!?",
    ],
)
def test_a_text_that_shares_a_phrase_or_only_words_is_none(text: str) -> None:
    assert text not in NearDuplicates([HELD_OUT])


def test_half_of_the_shorter_texts_sequences_make_a_repeat() -> None:
    held_out = "a b c d e f g h i"  # five sequences of five words
    assert "a b c d e f g x y" in NearDuplicates([held_out])  # three of them
    assert "a b c d e f x y z" not in NearDuplicates([held_out])  # two


def test_short_texts_are_compared_as_wholes() -> None:
    repeats = NearDuplicates(["True if empty.", "See also"])
    assert "true if empty" in repeats
    assert "True if empty or closed" not in repeats
    assert "See also the documentation of the module" not in repeats


@pytest.mark.parametrize(
    ("held_out", "repeat", "other"),
    [
        ("今天的天气很好我们去公园", "今天的天气很好我们去学校", "明天的音乐会在城市的另一边"),
        ("นี่คือประโยคภาษาไทย", "นี่คือประโยคภาษาไทยยาว", "เขาไปตลาดเมื่อวานนี้"),
    ],
)
def test_in_scripts_without_spaces_characters_are_compared(held_out: str, repeat: str, other: str) -> None:
    repeats = NearDuplicates([held_out])
    assert repeat in repeats
    assert other not in repeats


def test_nothing_repeats_texts_without_words() -> None:
    assert "..." not in NearDuplicates(["...", ""])
