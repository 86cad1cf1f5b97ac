from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import static_student
from kdnas_core.models.static import FREQUENT, can_be_static, static_start
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of
from tests.tiny_families import CONFIGS, family_teacher

WIDTH = 16


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def words_of(teacher: Teacher) -> np.ndarray:
    known = np.arange(teacher.model.config.vocab_size)
    return known[~np.isin(known, teacher.tokenizer.all_special_ids)]


def started(teacher: Teacher, words: np.ndarray, counts: np.ndarray) -> PreTrainedModel:
    student = new_student(teacher, static_student(teacher.architecture.hidden_size), seed=0)
    student.load_state_dict(static_start(teacher, student, words, counts), strict=False)
    return student


def vectors_of(student: PreTrainedModel, words: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        vectors: torch.Tensor = student(input_ids=torch.from_numpy(words)[:, None]).last_hidden_state[:, 0]
    return vectors.double()


def alone(teacher: Teacher, words: np.ndarray) -> torch.Tensor:
    """What the teacher returns for each word between a text's special tokens, one at a time."""
    start, end = teacher.tokenizer.cls_token_id, teacher.tokenizer.sep_token_id
    with torch.inference_mode():
        states = [
            teacher.model(input_ids=torch.tensor([[start, word, end]])).last_hidden_state[0, 1]
            for word in words.tolist()
        ]
    return torch.stack(states).double()


def test_each_word_starts_with_the_teachers_output_for_it_alone_weighed_by_how_rare_it_is(
    teacher: Teacher,
) -> None:
    words = words_of(teacher)
    counts = np.arange(len(words))
    vectors = vectors_of(started(teacher, words, counts), words)
    expected = alone(teacher, words)
    weights = FREQUENT / (FREQUENT + torch.from_numpy(counts / counts.sum()).double())
    expected = weights[:, None] * (expected - expected.mean(0))
    kept = vectors.abs().amax(0) > 0
    assert int((~kept).sum()) == 2  # those that keep the lengths, of the least variance
    assert expected.var(0)[~kept].max() <= expected.var(0)[kept].min() * 1.1
    assert torch.allclose(vectors[:, kept], expected[:, kept], rtol=1e-4, atol=1e-5)


def test_a_text_has_the_mean_of_its_words_wherever_they_stand(teacher: Teacher) -> None:
    words = words_of(teacher)
    student = started(teacher, words, np.ones(len(words), dtype=np.int64))
    text = torch.from_numpy(words[:8])
    with torch.inference_mode():
        one = student(input_ids=text[None]).last_hidden_state[0]
        other = student(input_ids=text.flip(0)[None]).last_hidden_state[0]
    assert torch.equal(one, other.flip(0))


def test_words_that_the_texts_lack_get_a_vector_from_their_embeddings(teacher: Teacher) -> None:
    words = words_of(teacher)
    known, unknown = words[::2], words[1::2]
    student = started(teacher, known, np.ones(len(known), dtype=np.int64))
    vectors, expected = vectors_of(student, unknown), alone(teacher, unknown)
    expected = expected - alone(teacher, known).mean(0)
    cosines = torch.nn.functional.cosine_similarity(vectors, expected)
    assert cosines.mean() > 0.3
    assert not torch.isnan(vectors).any()


def test_special_tokens_have_no_weight_in_a_mean(teacher: Teacher) -> None:
    words = np.arange(teacher.model.config.vocab_size)
    student = started(teacher, words, np.ones(len(words), dtype=np.int64))
    special = np.array(teacher.tokenizer.all_special_ids)
    assert vectors_of(student, special).abs().max() < 1e-4


def test_positions_and_segments_are_zero_and_are_not_trained(teacher: Teacher) -> None:
    student = new_student(teacher, static_student(WIDTH), seed=0)
    frozen = {name for name, parameter in student.named_parameters() if not parameter.requires_grad}
    assert frozen == {"embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"}
    assert all(not student.get_parameter(name).any() for name in frozen)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_without_a_factorised_embedding_can_be_static(family: str, teacher: Teacher) -> None:
    teacher = family_teacher(teacher, family)
    assert can_be_static(teacher) is (family != "electra, factorised")
    if not can_be_static(teacher):
        return
    words, ones = words_of(teacher)[:20], np.ones(20, dtype=np.int64)
    vectors, expected = vectors_of(started(teacher, words, ones), words), alone(teacher, words)
    expected = (expected - expected.mean(0)) * (FREQUENT / (FREQUENT + 1 / 20))
    kept = vectors.abs().amax(0) > 1e-4
    assert int((~kept).sum()) == 2
    assert torch.allclose(vectors[:, kept], expected[:, kept], rtol=1e-3, atol=1e-4)
