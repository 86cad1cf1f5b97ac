from __future__ import annotations

import pytest

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.dashboard.model.published import BERT_BASE, SYSTEMS, name_of, scaled

MINILM = Architecture(6, 384, 1536, 12)


def test_nothing_is_scaled_for_a_teacher_of_the_size_of_bert_base() -> None:
    for system in SYSTEMS:
        shape = scaled(PRESETS[system.preset], BERT_BASE)
        assert shape == PRESETS[system.preset]
        assert name_of(system, shape) == system.name


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("tinybert4", (2, 156, 600, 12)),
        ("tinybert6", (3, 384, 1536, 12)),
        ("distilbert4", (2, 384, 1536, 12)),
        ("bert-small", (2, 256, 1024, 8)),
        ("mobilebert-tiny", (12, 256, 256, 4)),
    ],
)
def test_depth_and_width_shrink_in_proportion_to_the_teacher(
    preset: str, expected: tuple[int, int, int, int]
) -> None:
    shape = scaled(PRESETS[preset], MINILM)
    assert (shape.layers, shape.hidden_size, shape.intermediate_size, shape.attention_heads) == expected


def test_bottlenecks_and_factorised_embeddings_shrink_too() -> None:
    shape = scaled(PRESETS["mobilebert-tiny"], MINILM)
    assert (shape.embedding_size, shape.bottleneck_size) == (64, 64)
    assert (shape.feed_forward_networks, shape.bottleneck_attention) == (2, True)


def test_a_scaled_row_says_so_in_its_name() -> None:
    system = next(each for each in SYSTEMS if each.name == "TinyBERT4")
    assert name_of(system, scaled(PRESETS[system.preset], MINILM)) == "TinyBERT4 (scaled: 2 x 156)"


def test_every_student_of_a_tiny_teacher_is_a_valid_shape() -> None:
    tiny = Architecture(2, 32, 64, 4)
    for system in SYSTEMS:
        assert scaled(PRESETS[system.preset], tiny).layers >= 1


def test_what_is_retained_is_told_only_where_it_is_published() -> None:
    by_name = {system.name: system for system in SYSTEMS}
    assert by_name["TinyBERT4"].retained == pytest.approx(77.0 / 79.5)
    assert by_name["PD"].retained is None
