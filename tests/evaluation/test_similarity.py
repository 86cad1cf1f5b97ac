from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.tasks import Row, Task
from kdnas_core.evaluation import zero_shot
from kdnas_core.evaluation.zero_shot import can_compare, similarity_score
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of

VECTORS = {"a": [1.0, 0.0], "b": [2.0, 0.1], "c": [1.0, 1.0], "d": [0.0, 3.0], "e": [-5.0, 0.0]}


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors in a plane: the angle to a grows from b to c, d and e, independent of their lengths."""

    def vectors(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sentences: Sequence[str],
        length: int,
        pooling: str,
    ) -> torch.Tensor:
        return torch.tensor([VECTORS[sentence] for sentence in sentences])

    monkeypatch.setattr(zero_shot, "sentence_vectors", vectors)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((5, 4, 3, 0), 1.0), ((0, 1, 2, 9), -1.0), ((4, 5, 3, 0), 0.8), ((2, 2, 2, 2), 0.0)],
)
def test_the_score_is_the_rank_correlation_of_angles_with_what_people_say(
    scores: Sequence[float], expected: float, plane: None, teacher: Teacher
) -> None:
    rows = [Row("a", other, score) for other, score in zip("bcde", scores, strict=True)]
    assert similarity_score(teacher.model, teacher.tokenizer, rows, 8) == pytest.approx(expected)


def test_equal_sentences_are_more_alike_than_others_to_a_real_model(
    teacher: Teacher, texts: list[str]
) -> None:
    same = [Row(text, text, 5.0) for text in texts[:20]]
    others = [Row(text, other, 0.0) for text, other in zip(texts[:20], texts[20:40], strict=True)]
    score = similarity_score(teacher.model, teacher.tokenizer, [*same, *others], 64)
    assert score > 0.8  # ties keep it under 1
    assert not any(parameter.grad is not None for parameter in teacher.model.parameters())


def test_a_row_that_is_no_pair_cannot_be_compared(teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="pairs"):
        similarity_score(teacher.model, teacher.tokenizer, [Row("a", None, 1.0)], 8)


def test_only_pairs_with_scores_can_be_compared() -> None:
    pair, single = Row("a", "b", 1.0), Row("a", None, 1.0)
    assert can_compare(Task("t", (), {"train": [pair]}, ()))
    assert not can_compare(Task("t", ("0", "1"), {"train": [pair]}, ()))
    assert not can_compare(Task("t", (), {"train": [single]}, ()))
