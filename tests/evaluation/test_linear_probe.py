from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdnas_core.evaluation.zero_shot import probe_accuracy, sentence_vectors
from kdnas_core.models.pooling import Mode
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


POOLINGS: dict[Mode, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "max": lambda states: states.amax(0),
}


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_sentence_vector_is_pooled_over_its_own_tokens_whatever_stands_beside_it(
    mode: Mode, teacher: Teacher, texts: list[str]
) -> None:
    together = sentence_vectors(teacher.model, teacher.tokenizer, texts[:70], 32, mode)
    for index in (0, 33, 69):
        inputs = teacher.tokenizer([texts[index]], truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            alone = POOLINGS[mode](teacher.model(**inputs).last_hidden_state[0].double())
        torch.testing.assert_close(together[index].double(), alone, atol=1e-5, rtol=1e-5)


def test_a_classifier_tells_apart_what_vectors_tell_apart_and_does_no_better_than_chance_on_random_labels(
    teacher: Teacher, texts: list[str]
) -> None:
    def marked(some: list[str]) -> list[tuple[str, int]]:
        return [
            (f"{('return ' if index % 2 else 'the ') * 12}{text}", index % 2)
            for index, text in enumerate(some)
        ]

    def at_random(some: list[str]) -> list[tuple[str, int]]:
        return [(text, index * 7919 % 31 % 2) for index, text in enumerate(some)]

    train, test = texts[:200], texts[200:300]
    told = probe_accuracy(teacher.model, teacher.tokenizer, marked(train), marked(test), 64)
    guessed = probe_accuracy(teacher.model, teacher.tokenizer, at_random(train), at_random(test), 64)
    assert told > 0.9
    assert guessed < 0.7
    assert not any(parameter.grad is not None for parameter in teacher.model.parameters())
