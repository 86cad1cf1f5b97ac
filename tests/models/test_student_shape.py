from __future__ import annotations

from pathlib import Path

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.models.student import new_student, shape_of_model
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of
from tests.tiny_families import DISTINCT, family_teacher

SHAPES = [
    Architecture(2, 16, 32, 4, "silu"),
    Architecture(3, 24, 48, 2, "gelu", 8),
    Architecture(2, 24, 32, 4, "relu", 8, 12, 4, False),
    Architecture(2, 24, 32, 4, "gelu", 8, 12, 2, True),
    Architecture(2, 24, 32, 4, "relu", None, 12, 2, True),
    Architecture(2, 30, 32, 4, "relu", 8, 12, 2, False),  # heads divide the bottleneck, not the stream
]


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        *(("bert", shape) for shape in SHAPES),
        *((kind, shape) for kind in DISTINCT[1:] for shape in SHAPES[:2]),
    ],
)
def test_the_shape_of_a_student_is_what_it_was_made_with(
    kind: str, architecture: Architecture, teacher: Teacher
) -> None:
    other = family_teacher(teacher, kind)
    found = shape_of_model(new_student(other, architecture, seed=0))
    if kind == "electra, factorised" and architecture == SHAPES[0]:
        assert found.embedding_size is None  # 16, which is all of its width
    assert found == architecture


@pytest.mark.parametrize("kind", DISTINCT)
def test_the_shape_of_a_teacher_is_its_own(kind: str, teacher: Teacher) -> None:
    other = family_teacher(teacher, kind)
    assert shape_of_model(other.model) == other.architecture
