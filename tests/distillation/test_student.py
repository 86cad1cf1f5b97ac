from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.student import new_student, start_student
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.search.space import SearchSpace
from tests.tiny import targets_of, teacher_of

SPACE = SearchSpace((1, 3), (16, 24), (32, 48), (2, 4, 8), ("gelu", "silu"))
SMALL = Architecture(2, 16, 32, 2)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def targets(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:20])


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_every_point_of_a_space_is_saved_and_loaded_by_stock_transformers(
    teacher: Teacher, tmp_path: Path
) -> None:
    for architecture in SPACE:
        student = new_student(teacher, architecture, seed=1)
        student.save_pretrained(tmp_path / architecture.key)
        loaded = AutoModel.from_pretrained(tmp_path / architecture.key)
        assert type(loaded) is type(teacher.model)
        assert same_weights(loaded, student)
        config = loaded.config
        assert architecture == Architecture(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.hidden_act,
        )
        assert config.vocab_size == teacher.model.config.vocab_size
        with torch.no_grad():
            states = loaded(input_ids=torch.ones(1, 5, dtype=torch.long)).last_hidden_state
        assert states.shape == (1, 5, architecture.hidden_size)


def test_weights_are_written_as_safetensors(teacher: Teacher, tmp_path: Path) -> None:
    new_student(teacher, SMALL, seed=1).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_the_same_seed_gives_the_same_weights_whatever_came_before(teacher: Teacher) -> None:
    torch.manual_seed(1)
    one = new_student(teacher, SMALL, seed=7)
    torch.manual_seed(2)
    assert same_weights(one, new_student(teacher, SMALL, seed=7))
    assert not same_weights(one, new_student(teacher, SMALL, seed=8))


@pytest.mark.parametrize("start", ["random", "teacher"])
def test_the_random_numbers_of_others_are_left_alone(start: str, teacher: Teacher, targets: Targets) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    start_student(teacher, SMALL, "random" if start == "random" else "teacher", targets, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_equal(np.random.get_state(legacy=False), before[2])


def test_a_random_start_is_a_new_student(teacher: Teacher, targets: Targets) -> None:
    started = start_student(teacher, SMALL, "random", targets, seed=3)
    assert same_weights(started, new_student(teacher, SMALL, seed=3))


def test_a_start_from_the_teacher_is_not_random_but_repeatable(teacher: Teacher, targets: Targets) -> None:
    started = start_student(teacher, SMALL, "teacher", targets, seed=3)
    assert not same_weights(started, new_student(teacher, SMALL, seed=3))
    assert same_weights(started, start_student(teacher, SMALL, "teacher", targets, seed=3))


def test_a_student_is_float32_in_eval_mode_and_can_learn(teacher: Teacher) -> None:
    student = new_student(teacher, SMALL, seed=0)
    assert not student.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in student.parameters())


def test_making_a_student_leaves_the_teachers_config_alone(teacher: Teacher) -> None:
    before = teacher.model.config.to_dict()
    new_student(teacher, SMALL, seed=0)
    assert teacher.model.config.to_dict() == before
