from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import MobileBertConfig

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.models.families import FAMILIES, check_config, field_of, first_position, shape_of
from tests.sentences import is_one_sentence
from tests.tiny_families import CONFIGS, model_of


def fields(kind: str, **others: Any) -> dict[str, Any]:
    return CONFIGS[kind](vocab_size=100, pad_token_id=1).to_dict() | others


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        check_config(config, "somebody/some-model")
    assert is_one_sentence(str(caught.value))
    assert "somebody/some-model" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_family_is_taken_and_its_shape_read_by_its_own_names(kind: str) -> None:
    check_config(fields(kind), "name")
    embedding = 16 if "factorised" in kind else None
    assert shape_of(fields(kind), "name") == Architecture(4, 32, 64, 4, "gelu", embedding)


def test_the_kinds_that_are_tried_are_of_all_families() -> None:
    assert {fields(kind)["model_type"] for kind in CONFIGS} == set(FAMILIES)


@pytest.mark.parametrize(
    "family", ["deberta-v2", "mpnet", "mobilebert", "gpt2", "t5", "albert", "modernbert", None]
)
def test_another_family_is_refused_by_its_name_with_those_that_do(family: str | None) -> None:
    message = refusal({"model_type": family})
    assert repr(family) in message
    assert all(known in message for known in FAMILIES)


def test_a_mobilebert_is_a_student_and_no_teacher() -> None:
    assert "'mobilebert'" in refusal(MobileBertConfig().to_dict())


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_a_decoder_is_refused(kind: str) -> None:
    assert "is a decoder" in refusal(fields(kind, is_decoder=True))


@pytest.mark.parametrize("positions", ["relative_key", "relative_key_query"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "electra"])
def test_relative_positions_are_refused_by_their_type(kind: str, positions: str) -> None:
    assert positions in refusal(fields(kind, position_embedding_type=positions))


@pytest.mark.parametrize("positions", ["absolute", None])
def test_positions_that_are_said_to_be_absolute_are_taken(positions: str | None) -> None:
    check_config(fields("bert", position_embedding_type=positions), "name")


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_field_of_the_shape_that_is_missing_is_named_as_the_family_names_it(kind: str) -> None:
    config = fields(kind)
    name = field_of(config["model_type"], "intermediate_size")
    del config[name]
    with pytest.raises(BadInput, match=name) as caught:
        shape_of(config, "name")
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("kind", "pad"),
    [
        ("bert", 1),
        ("distilbert", 1),
        ("electra, factorised", 3),
        ("roberta", 0),
        ("xlm-roberta", 1),
        ("camembert", 3),
    ],
)
def test_the_first_token_has_the_first_position_that_the_model_reads(kind: str, pad: int) -> None:
    model = model_of(kind, 100, pad)
    first = first_position(model.config.model_type, pad)
    table = model.get_submodule("embeddings.position_embeddings").get_parameter("weight")
    ids = torch.full((1, 5), 7)
    with torch.no_grad():
        before = model(input_ids=ids).last_hidden_state
        table[:first] += 1
        assert torch.equal(model(input_ids=ids).last_hidden_state, before)
        table[first] += 1
        assert not torch.equal(model(input_ids=ids).last_hidden_state, before)
