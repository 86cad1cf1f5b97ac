from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas_core.distillation.augmentation import neighbours as module
from kdnas_core.distillation.augmentation.neighbours import (
    nearest,
    neighbours_in_embeddings,
    neighbours_in_glove,
)
from kdnas_core.errors import BadInput
from kdnas_core.models.teacher import Teacher
from tests.sentences import is_one_sentence
from tests.tiny import teacher_of
from tests.tiny_families import family_teacher

GLOVE = """the 1 0.1 0
king 0 1 0
queen 0 0.9 0.1
King 0 0.99 0
prince 0 0.8 0.3
, 0 1 0
1984 0 1 0
apple 0 0 1
pear 1 0 20
"""


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    return glove_of(tmp_path, GLOVE)


def glove_of(folder: Path, text: str) -> Path:
    path = folder / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_nearest_words_by_cosine_are_given_in_alphabetical_order_and_never_the_word_itself(
    glove: Path,
) -> None:
    neighbours = neighbours_in_glove(glove)
    # no comma, no number, no `King` for `king`
    assert nearest(neighbours, ["king", "apple"], 2) == {
        "king": ("prince", "queen"),
        "apple": ("pear", "prince"),
    }


def test_a_long_vector_is_no_nearer_for_its_length(glove: Path) -> None:
    assert nearest(neighbours_in_glove(glove), ["prince"], 1) == {"prince": ("queen",)}


def test_the_number_of_neighbours_is_bounded_by_the_table(glove: Path) -> None:
    assert nearest(neighbours_in_glove(glove), ["king"], 50)["king"] == (
        "apple",
        "pear",
        "prince",
        "queen",
        "the",
    )


def test_neighbours_are_in_the_case_of_the_word(glove: Path) -> None:
    found = nearest(neighbours_in_glove(glove), ["Queen", "APPLE"], 1)
    assert found == {"Queen": ("King",), "APPLE": ("PEAR",)}


def test_a_word_without_a_vector_has_no_neighbours(glove: Path) -> None:
    assert nearest(neighbours_in_glove(glove), ["zyzzyva"], 3) == {"zyzzyva": ()}


def test_in_chunks_the_neighbours_are_the_same(glove: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours, words = neighbours_in_glove(glove), ["king", "queen", "the", "apple", "pear"]
    at_once = nearest(neighbours, words, 2)
    monkeypatch.setattr(module, "CHUNK", 2)
    assert nearest(neighbours, words, 2) == at_once


def test_only_the_first_lines_are_read(glove: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WORDS", 3)
    assert neighbours_in_glove(glove).words == ["the", "king", "queen"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("the 1 2 3\nking 1 2\n", 2),
        ("the 1 2 3\nking 1 2 3\nqueen 1 2 3 4\n", 3),
        ("the 1 2 3\nking 1 x 3\n", 2),
        ("the 1 2 3\nking 1 nan 3\n", 2),
        ("the 1 2 3\n\nking 1 2 3\n", 2),
        ("400000 300\nthe 1 2 3\n", 1),
        ("the\n", 1),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(text: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"^Line {line} of the word vectors .*GloVe text file\.$") as refused:
        neighbours_in_glove(glove_of(tmp_path, text))
    assert is_one_sentence(str(refused.value))


def test_a_word_that_holds_spaces_is_passed_over(tmp_path: Path) -> None:
    assert neighbours_in_glove(glove_of(tmp_path, "the 1 2\n. . . 1 2\nking 2 1\n")).words == ["the", "king"]


def test_a_file_that_holds_no_words_or_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (glove_of(tmp_path, ""), glove_of(tmp_path, ", 1 2\n"), tmp_path / "none.txt", tmp_path):
        with pytest.raises(BadInput, match=r"GloVe text file\.$") as refused:
            neighbours_in_glove(path)
        assert is_one_sentence(str(refused.value))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra, factorised"])
def test_in_embeddings_a_words_vector_is_the_mean_of_its_pieces(kind: str, teacher: Teacher) -> None:
    other = family_teacher(teacher, kind)
    table = other.model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    word = "documentationally"
    pieces = other.tokenizer.tokenize(word)
    assert len(pieces) > 1
    mean = table[other.tokenizer.convert_tokens_to_ids(pieces)].double().mean(dim=0).numpy()
    scores = {
        token: float(row @ mean / np.linalg.norm(row) / np.linalg.norm(mean))
        for token, row in zip(
            other.tokenizer.convert_ids_to_tokens(list(range(len(table)))),
            table.double().numpy(),
            strict=True,
        )
        if token.isalpha() and len(token) > 1
    }
    expected = sorted(sorted(scores, key=lambda token: -scores[token])[:7])
    assert nearest(neighbours_in_embeddings(other), [word], 7)[word] == tuple(expected)


def test_a_word_that_the_tokenizer_does_not_know_has_no_neighbours_in_embeddings(teacher: Teacher) -> None:
    assert nearest(neighbours_in_embeddings(teacher), ["我"], 3) == {"我": ()}
