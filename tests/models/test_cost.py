from __future__ import annotations

from torch import nn
from transformers import BertConfig, BertModel

from kdnas_core.models.student import parameters


def test_all_parameters_count_embeddings_and_pooler_included() -> None:
    h, f, vocabulary, positions, layers = 12, 20, 30, 16, 2
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=h,
        intermediate_size=f,
        num_hidden_layers=layers,
        num_attention_heads=3,
        max_position_embeddings=positions,
        type_vocab_size=2,
    )
    norm, square = 2 * h, h * h + h
    embeddings = (vocabulary + positions + 2) * h + norm
    layer = 4 * square + (h * f + f) + (f * h + h) + 2 * norm
    assert parameters(BertModel(config)) == embeddings + layers * layer + square


def test_a_shared_parameter_counts_once() -> None:
    one, other = nn.Linear(3, 5, bias=False), nn.Linear(3, 5, bias=False)
    assert parameters(nn.ModuleList([one, other])) == 30
    other.weight = one.weight
    assert parameters(nn.ModuleList([one, other])) == 15
