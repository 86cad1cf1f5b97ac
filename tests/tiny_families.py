"""A tiny random teacher of every family, with the words and the tokenizer of the tiny BERT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

from kdnas_core.models.families import shape_of
from kdnas_core.models.teacher import Teacher

USABLE = 80  # tokens
SHAPE: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": USABLE,
    "initializer_range": 0.2,  # wide enough that the layers do something
}
ROBERTA_SHAPE = SHAPE | {"max_position_embeddings": USABLE + 1, "type_vocab_size": 1}  # the padding's id is 0
DISTILBERT_SHAPE: dict[str, Any] = {
    "n_layers": 4,
    "dim": 32,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": USABLE,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "bert": lambda **words: BertConfig(**SHAPE, **words),
    "roberta": lambda **words: RobertaConfig(**ROBERTA_SHAPE, **words),
    "xlm-roberta": lambda **words: XLMRobertaConfig(**ROBERTA_SHAPE, **words),
    "camembert": lambda **words: CamembertConfig(**ROBERTA_SHAPE, **words),
    "distilbert": lambda **words: DistilBertConfig(**DISTILBERT_SHAPE, **words),
    "electra": lambda **words: ElectraConfig(**SHAPE, embedding_size=32, **words),
    "electra, factorised": lambda **words: ElectraConfig(**SHAPE, embedding_size=16, **words),
}
# one for each way through our code: XLM-R and CamemBERT are RoBERTa to it, a plain ELECTRA is BERT
DISTINCT = ("bert", "roberta", "distilbert", "electra, factorised")


def model_of(kind: str, vocabulary: int, pad: int = 0) -> PreTrainedModel:
    """A random model, whose biases and layer norms are random too."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModel.from_config(CONFIGS[kind](vocab_size=vocabulary, pad_token_id=pad))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval().requires_grad_(False)


def family_teacher(teacher: Teacher, kind: str) -> Teacher:
    """A teacher of another family with the words of this one."""
    model = model_of(kind, teacher.model.config.vocab_size, teacher.tokenizer.pad_token_id)
    shape = shape_of(model.config.to_dict(), kind)
    return dataclasses.replace(teacher, name=kind, model=model, architecture=shape, fingerprint=kind)
