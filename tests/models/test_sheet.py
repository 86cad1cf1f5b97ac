from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdnas_core.data.tokens import NOT_HIDDEN, Passage
from kdnas_core.models.targets import TokenizedTexts, tokenised
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of
from tests.tiny_families import CONFIGS, family_teacher

PAIRS = [("A name and a value.", "The value of a name."), ("One.", "A much longer one than the first is.")]
WITHOUT_SEGMENTS = ("roberta", "xlm-roberta", "camembert", "distilbert")


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def ids_of(encoded: TokenizedTexts) -> list[list[int]]:
    return [encoded.ids[encoded.slice(index)].tolist() for index in range(len(encoded.offsets) - 1)]


def types_of(encoded: TokenizedTexts) -> list[list[int]]:
    assert encoded.types is not None
    return [encoded.types[encoded.slice(index)].tolist() for index in range(len(encoded.offsets) - 1)]


def test_the_tokens_of_all_texts_stand_in_a_row(teacher: Teacher, texts: list[str]) -> None:
    some = [texts[0], "Short.", *texts[1:9]]
    encoded = tokenised(teacher, some, 128)
    assert ids_of(encoded) == [teacher.tokenizer(text)["input_ids"] for text in some]
    assert encoded.offsets[0] == 0
    assert encoded.offsets[-1] == len(encoded.ids)
    assert set(encoded.labels.tolist()) == {NOT_HIDDEN}


def test_however_many_texts_are_tokenised_at_once_the_sheet_is_the_same(
    teacher: Teacher, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some: list[Passage] = [*texts[:10], *PAIRS, *texts[10:20]]
    whole = tokenised(teacher, some, 32, hidden_words=True)
    monkeypatch.setattr("kdnas_core.models.targets.AT_ONCE", 7)
    assert tokenised(teacher, some, 32, hidden_words=True).fingerprint == whole.fingerprint


def test_single_sentences_have_no_types(teacher: Teacher, texts: list[str]) -> None:
    assert tokenised(teacher, texts[:5], 64).types is None


def test_tokens_of_a_pair_say_which_sentence_they_are_of(teacher: Teacher) -> None:
    encoded = tokenised(teacher, PAIRS, 64)
    for index, (first, second) in enumerate(PAIRS):
        before, after = (len(teacher.tokenizer(part)["input_ids"]) for part in (first, second))
        assert types_of(encoded)[index] == [0] * before + [1] * (after - 1)  # one [CLS] for both
    assert ids_of(encoded) == [teacher.tokenizer(*pair)["input_ids"] for pair in PAIRS]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_teacher_that_knows_no_second_sentence_is_told_of_none(kind: str, teacher: Teacher) -> None:
    encoded = tokenised(family_teacher(teacher, kind), PAIRS, 64)
    assert (encoded.types is None) == (kind in WITHOUT_SEGMENTS)
    assert ids_of(encoded) == ids_of(tokenised(teacher, PAIRS, 64))


def test_texts_are_cut_at_the_length_with_their_last_token(teacher: Teacher, texts: list[str]) -> None:
    encoded = tokenised(teacher, [*texts[:9], "Short."], 12)
    for tokens, text in zip(ids_of(encoded), [*texts[:9], "Short."], strict=True):
        whole = teacher.tokenizer(text)["input_ids"]
        assert tokens == (whole if len(whole) <= 12 else [*whole[:11], whole[-1]])


def test_of_a_pair_the_longer_sentence_is_cut(teacher: Teacher) -> None:
    encoded = tokenised(teacher, [("Short.", "name " * 50), ("name " * 50, "Short.")], 16)
    short = len(teacher.tokenizer("Short.")["input_ids"])
    # [CLS] and [SEP] count to the first, the last [SEP] to the second
    assert [sum(types) for types in types_of(encoded)] == [16 - short, short - 1]


def test_hidden_words_are_labelled_and_nothing_else_is_changed(teacher: Teacher, texts: list[str]) -> None:
    whole, hiding = (tokenised(teacher, texts[:50], 64, hidden_words=hidden) for hidden in (False, True))
    hidden = hiding.labels != NOT_HIDDEN
    assert hidden.mean() == pytest.approx(0.15, abs=0.02)
    assert np.array_equal(hiding.labels[hidden], whole.ids[hidden])
    assert np.array_equal(hiding.ids[~hidden], whole.ids[~hidden])
    assert (hiding.ids[hidden] == teacher.tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.05)


def test_words_of_pairs_are_hidden_too(teacher: Teacher) -> None:
    encoded = tokenised(teacher, PAIRS * 9, 64, hidden_words=True)
    assert (encoded.labels != NOT_HIDDEN).any()
    assert types_of(encoded) == types_of(tokenised(teacher, PAIRS * 9, 64))


@pytest.mark.parametrize(
    ("passages", "length", "hidden"),
    [
        (["A name.", "A value."], 32, False),
        (["A value.", "A name.", "A value."], 32, False),
        (["A value.", "A name."], 3, False),
        (["A value.", "A name."], 32, True),
        ([("A value.", "A name.")], 32, False),
    ],
)
def test_the_fingerprint_changes_with_all_that_is_read(
    passages: Sequence[Passage], length: int, hidden: bool, teacher: Teacher
) -> None:
    one = tokenised(teacher, ["A value.", "A name."], 32)
    assert one.fingerprint == tokenised(teacher, ["A value.", "A name."], 32).fingerprint
    assert one.fingerprint != tokenised(teacher, passages, length, hidden).fingerprint


@pytest.mark.parametrize("field", ["ids", "labels", "offsets", "types"])
def test_the_fingerprint_changes_with_each_number(field: str, teacher: Teacher) -> None:
    encoded = tokenised(teacher, PAIRS, 64)
    other = getattr(encoded, field).copy()
    other[1] += 1
    assert replace(encoded, **{field: other}).fingerprint != encoded.fingerprint
