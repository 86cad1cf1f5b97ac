from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput

VOCABULARY = 30_522

# Millions of parameters as published: with pooler and segment embeddings, but where another count is named.
PUBLISHED = {
    "bert-base": 109.48,
    "tinybert4": 14.35,
    "tinybert6": 66.96,
    "bert-pkd-6": 66.96,
    "bert-pkd-3": 45.69,
    "bert-tiny": 4.39,
    "bert-mini": 11.17,
    "bert-small": 28.76,
    "bert-medium": 41.37,
    "minilm-l12-h384": 33.36,
    "minilm-l6-h384": 22.71,
    "minilm-l6-h768": 66.96,
}
WITHOUT_POOLER = {"bert-pkd-4": 52.2}  # counted so in the TinyBERT paper, which made it
WITHOUT_POOLER_AND_SEGMENTS = {"distilbert6": 66.36, "distilbert4": 52.2}  # DistilBERT has neither


def stock_bert(architecture: Architecture, pooler: bool = True) -> BertModel:
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=architecture.layers,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_attention_heads=architecture.attention_heads,
        hidden_act=architecture.hidden_act,
    )
    config._attn_implementation = "eager"  # the fused kernels of the others are not all counted
    with torch.device("meta"):
        return BertModel(config, add_pooling_layer=pooler).eval()


def counted(model: torch.nn.Module, but: str = "nothing") -> float:
    """Millions of parameters."""
    return sum(weight.numel() for name, weight in model.named_parameters() if but not in name) / 1e6


@pytest.mark.parametrize("sequence_length", [1, 50, 128])
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(1, 32, 64, 4),
        Architecture(3, 384, 576, 12, "silu"),
        Architecture(4, 312, 1200, 12, "relu"),
        Architecture(10, 768, 384, 3),
    ],
)
def test_flops_are_those_that_torch_counts(architecture: Architecture, sequence_length: int) -> None:
    model = stock_bert(architecture, pooler=False)
    ids = torch.ones(1, sequence_length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    assert architecture.flops(sequence_length) == counter.get_total_flops()


architectures = st.builds(
    lambda layers, head, heads, ffn, act, embedding: Architecture(
        layers, head * heads, ffn, heads, act, embedding
    ),
    st.integers(1, 24),
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(1, 4096),
    st.sampled_from(["gelu", "relu", "silu"]),
    st.none() | st.integers(1, 512),
)


@given(architectures, architectures)
def test_keys_are_equal_where_architectures_are_and_only_there(
    one: Architecture, other: Architecture
) -> None:
    assert (one.key == other.key) == (one == other)


@pytest.mark.parametrize(
    "other",
    [
        Architecture(4, 48, 96, 4),
        Architecture(3, 96, 96, 4),
        Architecture(3, 48, 64, 4),
        Architecture(3, 48, 96, 3),
        Architecture(3, 48, 96, 4, "relu"),
        Architecture(3, 48, 96, 4, embedding_size=24),
    ],
)
def test_a_key_tells_apart_what_differs_in_one_knob(other: Architecture) -> None:
    assert Architecture(3, 48, 96, 4).key != other.key


@given(architectures)
def test_an_architecture_is_had_back_from_its_fields(architecture: Architecture) -> None:
    fields = architecture.to_dict()
    assert Architecture(**fields) == architecture
    assert ("embedding_size" in fields) == (architecture.embedding_size is not None)


def test_heads_that_do_not_divide_the_hidden_size_are_refused_in_words() -> None:
    with pytest.raises(BadInput, match="7 attention heads do not divide a hidden size of 384"):
        Architecture(3, 384, 1536, 7)


def test_heads_and_activation_do_not_change_the_shape() -> None:
    assert Architecture(3, 48, 96, 4, "relu").shape == Architecture(3, 48, 96, 12, "gelu").shape
    assert Architecture(3, 48, 96, 4).shape != Architecture(3, 96, 48, 4).shape


def test_every_preset_has_a_published_count() -> None:
    assert set(PRESETS) == {*PUBLISHED, *WITHOUT_POOLER, *WITHOUT_POOLER_AND_SEGMENTS}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_a_preset_has_the_published_number_of_parameters(name: str, millions: float) -> None:
    assert counted(stock_bert(PRESETS[name])) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("name", "millions"), WITHOUT_POOLER.items())
def test_a_preset_published_without_pooler_has_that_number(name: str, millions: float) -> None:
    assert counted(stock_bert(PRESETS[name], pooler=False)) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("name", "millions"), WITHOUT_POOLER_AND_SEGMENTS.items())
def test_a_preset_published_without_pooler_and_segments_has_that_number(name: str, millions: float) -> None:
    model = stock_bert(PRESETS[name], pooler=False)
    assert counted(model, but="token_type") == pytest.approx(millions, rel=0.01)
