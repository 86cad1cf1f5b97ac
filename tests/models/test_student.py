from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, ElectraModel, MobileBertModel, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.models.families import shape_of
from kdnas_core.models.student import new_student, start_student
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher
from kdnas_core.search.space import SearchSpace
from tests.tiny import made_up_importance, targets_of, teacher_of
from tests.tiny_families import CONFIGS, DISTINCT, USABLE, family_teacher

SPACE = SearchSpace((1, 3), (16, 24), (32, 48), (2, 4, 8), ("gelu", "silu"))
SMALL = Architecture(2, 16, 32, 2)
FACTORISED = Architecture(2, 24, 48, 2, "gelu", 8)
MOBILEBERT = Architecture(2, 24, 32, 4, "relu", 8, 12, 4, False)
MOBILEBERT_TINY = Architecture(2, 24, 32, 4, "relu", 8, 12, 2, True)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def targets(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:20])


def weight_of(student: PreTrainedModel, table: str) -> torch.nn.Parameter:
    return student.get_submodule(f"embeddings.{table}").get_parameter("weight")


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        *((kind, SMALL) for kind in CONFIGS),
        *((kind, FACTORISED) for kind in DISTINCT),
        *((kind, MOBILEBERT) for kind in DISTINCT),
        ("bert", MOBILEBERT_TINY),
    ],
)
def test_a_student_of_every_family_and_layout_is_saved_and_loaded_by_stock_transformers(
    kind: str, architecture: Architecture, teacher: Teacher, tmp_path: Path
) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, architecture, seed=1)
    student.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[strays] for strays in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same_weights(loaded, student)
    longest = torch.ones(2, USABLE, dtype=torch.long)
    with torch.no_grad():
        states = loaded(input_ids=longest, output_hidden_states=True).hidden_states
    assert len(states) == architecture.layers + 1
    assert states[-1].shape == (2, USABLE, architecture.hidden_size)
    assert states[-1].isfinite().all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_plain_student_is_of_its_teachers_family_and_shape(kind: str, teacher: Teacher) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, Architecture(2, 24, 48, 2, "silu"), seed=0)
    assert type(student) is type(other.model)
    found = shape_of(student.config.to_dict(), kind)
    assert (found.layers, found.hidden_size, found.intermediate_size) == (2, 24, 48)
    assert (found.attention_heads, found.hidden_act) == (2, "silu")
    assert weight_of(student, "word_embeddings").shape[0] == other.model.config.vocab_size


@pytest.mark.parametrize("kind", DISTINCT)
def test_a_factorised_student_is_an_electra_of_its_teachers_words_and_length(
    kind: str, teacher: Teacher
) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, FACTORISED, seed=0)
    assert isinstance(student, ElectraModel)
    assert shape_of(student.config.to_dict(), kind) == FACTORISED
    theirs = other.model.config
    assert weight_of(student, "word_embeddings").shape == (theirs.vocab_size, 8)
    assert weight_of(student, "position_embeddings").shape == (USABLE, 8)
    segments = 2 if kind == "distilbert" else theirs.type_vocab_size
    assert weight_of(student, "token_type_embeddings").shape == (segments, 8)
    assert student.config.pad_token_id == theirs.pad_token_id


@pytest.mark.parametrize("kind", DISTINCT)
def test_a_student_with_bottlenecks_is_a_mobilebert_as_published(kind: str, teacher: Teacher) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, MOBILEBERT, seed=0)
    tiny = new_student(other, MOBILEBERT_TINY, seed=0)
    assert isinstance(student, MobileBertModel)
    assert isinstance(tiny, MobileBertModel)
    layer, tiny_layer = (model.get_submodule("encoder.layer.0") for model in (student, tiny))
    assert layer.get_submodule("attention.self.value").get_parameter("weight").shape == (12, 24)
    assert tiny_layer.get_submodule("attention.self.value").get_parameter("weight").shape == (12, 12)
    assert layer.get_submodule("bottleneck.attention.dense").get_parameter("weight").shape == (12, 24)
    assert "bottleneck.attention.dense.weight" not in tiny_layer.state_dict()
    assert {name.split(".")[1] for name, _ in layer.named_parameters() if name.startswith("ffn.")} == {
        "0",
        "1",
        "2",
    }
    assert weight_of(student, "position_embeddings").shape == (USABLE, 24)
    assert not any("pooler" in name for name, _ in student.named_parameters())


@pytest.mark.parametrize(
    ("kind", "width", "given", "expected"),
    [
        ("electra, factorised", 24, None, 16),  # the teacher's own
        ("electra, factorised", 16, None, 16),
        ("electra, factorised", 8, None, 8),  # never wider than the student
        ("electra, factorised", 24, 8, 8),
        ("electra", 24, None, 24),
        ("electra", 24, 8, 8),
    ],
)
def test_the_embedding_of_an_electras_student_is_as_wide_as_said_or_as_its_teachers(
    kind: str, width: int, given: int | None, expected: int, teacher: Teacher
) -> None:
    student = new_student(family_teacher(teacher, kind), Architecture(2, width, 48, 2, "gelu", given), seed=0)
    assert weight_of(student, "word_embeddings").shape[1] == student.config.embedding_size == expected
    assert hasattr(student, "embeddings_project") == (expected != width)


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
    importance = made_up_importance(teacher) if start == "teacher" else None
    start_student(teacher, SMALL, targets, 3, importance)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_equal(np.random.get_state(legacy=False), before[2])


def test_a_random_start_is_a_new_student(teacher: Teacher, targets: Targets) -> None:
    started, sources = start_student(teacher, SMALL, targets, 3, importance=None)
    assert same_weights(started, new_student(teacher, SMALL, seed=3))
    assert sources == ()


def test_a_start_from_the_teacher_is_not_random_but_repeatable(teacher: Teacher, targets: Targets) -> None:
    importance = made_up_importance(teacher)
    started, sources = start_student(teacher, SMALL, targets, 3, importance)
    assert not same_weights(started, new_student(teacher, SMALL, seed=3))
    again, again_sources = start_student(teacher, SMALL, targets, 3, importance)
    assert same_weights(started, again)
    assert sources == again_sources


def test_a_student_is_float32_in_eval_mode_and_can_learn(teacher: Teacher) -> None:
    student = new_student(teacher, SMALL, seed=0)
    assert not student.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in student.parameters())


def test_making_a_student_leaves_the_teachers_config_alone(teacher: Teacher) -> None:
    before = teacher.model.config.to_dict()
    new_student(teacher, SMALL, seed=0)
    assert teacher.model.config.to_dict() == before
