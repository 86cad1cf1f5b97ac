from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kdnas_core.data.tokens import NOT_HIDDEN, check_mask_token, hide_words
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence
from tests.tiny import teacher_of

Ids = NDArray[np.int64]


@pytest.fixture
def tokenizer(tiny_teacher: Path) -> PreTrainedTokenizerBase:
    return teacher_of(tiny_teacher).tokenizer


@pytest.fixture
def ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Ids:
    """Many tokens, special ones among them, some of them unknown."""
    return np.concatenate(tokenizer([*texts, "ქართული"] * 3)["input_ids"])


def test_fifteen_of_a_hundred_words_are_hidden(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> None:
    _, labels = hide_words(ids, tokenizer)
    words = ~np.isin(ids, tokenizer.all_special_ids)
    assert (labels != NOT_HIDDEN).sum() == round(0.15 * words.sum())
    assert words.sum() > 20_000  # so that the shares below are narrow


def test_labels_are_the_words_that_were_hidden_and_no_other_token_changes(
    tokenizer: PreTrainedTokenizerBase, ids: Ids
) -> None:
    before = ids.copy()
    given, labels = hide_words(ids, tokenizer)
    hidden = labels != NOT_HIDDEN
    assert np.array_equal(ids, before)
    assert np.array_equal(labels[hidden], ids[hidden])
    assert np.array_equal(given[~hidden], ids[~hidden])


def test_a_special_token_is_never_hidden(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> None:
    special = np.isin(ids, tokenizer.all_special_ids)
    assert {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id} == set(ids[special])
    _, labels = hide_words(ids, tokenizer)
    assert (labels[special] == NOT_HIDDEN).all()


def test_of_ten_hidden_words_eight_become_the_mask_one_another_word_and_one_stays(
    tokenizer: PreTrainedTokenizerBase, ids: Ids
) -> None:
    given, labels = hide_words(ids, tokenizer)
    hidden = labels != NOT_HIDDEN
    masked = (given[hidden] == tokenizer.mask_token_id).mean()
    stays = (given[hidden] == labels[hidden]).mean()
    bound = 4 * np.sqrt(0.25 / hidden.sum())  # four standard deviations, at most
    assert masked == pytest.approx(0.8, abs=bound)
    # another word can be the same by chance, at most as often as the commonest is met
    commonest = np.bincount(labels[hidden]).max() / hidden.sum()
    assert 0.1 - bound < stays < 0.1 + 0.1 * commonest + bound
    assert 1 - masked - stays == pytest.approx(0.1, abs=bound + 0.1 * commonest)


def test_a_word_that_takes_the_place_of_another_is_one_of_the_texts(
    tokenizer: PreTrainedTokenizerBase, ids: Ids
) -> None:
    few = np.concatenate([ids[:200]] * 20)  # by far not all of the vocabulary
    given, _ = hide_words(few, tokenizer)
    assert set(given) - set(few) == {tokenizer.mask_token_id}
    replaced = (given != few) & (given != tokenizer.mask_token_id)
    assert replaced.sum() > 10
    assert not np.isin(given[replaced], tokenizer.all_special_ids).any()


def test_the_same_texts_have_the_same_words_hidden(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> None:
    first = hide_words(ids, tokenizer)
    np.random.default_rng(3).random(9)
    again = hide_words(ids, tokenizer)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_of_a_single_word_that_word_is_hidden(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = np.array(tokenizer("the")["input_ids"])
    _, labels = hide_words(ids, tokenizer)
    assert (labels != NOT_HIDDEN).tolist() == [False, True, False]


def test_texts_without_a_word_that_the_tokenizer_knows_are_refused_in_one_sentence(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(BadInput, match="knows no word") as refused:
        hide_words(np.array(tokenizer("")["input_ids"]), tokenizer)
    assert is_one_sentence(str(refused.value))


def test_a_tokenizer_without_a_mask_token_is_refused_in_one_sentence(tiny_teacher: Path) -> None:
    tokenizer = type(teacher_of(tiny_teacher).tokenizer).from_pretrained(tiny_teacher)
    check_mask_token(tokenizer)
    tokenizer.mask_token = None
    for refused in (lambda: check_mask_token(tokenizer), lambda: hide_words(np.arange(9), tokenizer)):
        with pytest.raises(BadInput, match="no mask token") as caught:
            refused()
        assert is_one_sentence(str(caught.value))
