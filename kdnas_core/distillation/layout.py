"""A student's config: the stock `transformers` layout that holds its architecture and its teacher's words."""

from __future__ import annotations

import copy
from typing import Any

from transformers import ElectraConfig, MobileBertConfig, PreTrainedConfig

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.families import field_of, first_position

DISTILBERT_EPSILON = 1e-12  # of its layer norms, which its config does not name
SEGMENTS = 2  # of a student whose layout has them and whose teacher has none


def student_config(teacher: PreTrainedConfig, architecture: Architecture) -> PreTrainedConfig:
    """The config of a student.

    A plain student is of its teacher's family. A factorised embedding makes it an ELECTRA, bottlenecks make
    it a MobileBERT, of the teacher's vocabulary and usable length.

    Args:
        teacher: config of its teacher.
        architecture: the student's shape. Without `embedding_size`, the student of an ELECTRA whose
            embedding is factorised keeps that size, unless it is wider than the student.
    """
    shape, family = _shape(architecture), teacher.model_type
    if architecture.bottleneck_size is not None:
        return MobileBertConfig(**shape, **_bottlenecks(architecture), **_words(teacher))
    embedding = _embedding_size(architecture, teacher)
    if embedding is not None and family != "electra":
        return ElectraConfig(**shape, embedding_size=embedding, **_words(teacher), **_numerics(teacher))
    config = copy.deepcopy(teacher)
    config.update({field_of(family, field): value for field, value in shape.items()})
    if family == "electra":
        config.embedding_size = embedding
    return config


def _shape(architecture: Architecture) -> dict[str, Any]:
    return {
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_attention_heads": architecture.attention_heads,
        "hidden_act": architecture.hidden_act,
    }


def _embedding_size(architecture: Architecture, teacher: PreTrainedConfig) -> int | None:
    """As the architecture says; for the student of an ELECTRA, whose config needs one, never None."""
    if architecture.embedding_size is not None or teacher.model_type != "electra":
        return architecture.embedding_size
    theirs: int = teacher.embedding_size
    factorised = theirs < teacher.hidden_size and theirs <= architecture.hidden_size
    return theirs if factorised else architecture.hidden_size


def _bottlenecks(architecture: Architecture) -> dict[str, Any]:
    return {
        "embedding_size": architecture.embedding_size or architecture.hidden_size,
        "use_bottleneck": True,
        "intra_bottleneck_size": architecture.bottleneck_size,
        "num_feedforward_networks": architecture.feed_forward_networks,
        "use_bottleneck_attention": architecture.bottleneck_attention,
        "key_query_shared_bottleneck": not architecture.bottleneck_attention,
        "trigram_input": True,
        "normalization_type": "no_norm",
        "classifier_activation": False,  # as published: a pooler without weights
    }


def _words(teacher: PreTrainedConfig) -> dict[str, Any]:
    """What a student's layout must know of the teacher's tokens; positions are counted from 0 there."""
    return {
        "vocab_size": teacher.vocab_size,
        "pad_token_id": teacher.pad_token_id,
        "bos_token_id": getattr(teacher, "bos_token_id", None),
        "eos_token_id": getattr(teacher, "eos_token_id", None),
        "type_vocab_size": getattr(teacher, "type_vocab_size", SEGMENTS),
        "max_position_embeddings": teacher.max_position_embeddings
        - first_position(teacher.model_type, teacher.pad_token_id),
    }


def _numerics(teacher: PreTrainedConfig) -> dict[str, Any]:
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout = {field: getattr(teacher, field_of(teacher.model_type, field)) for field in fields}
    epsilon = getattr(teacher, "layer_norm_eps", DISTILBERT_EPSILON)
    return {"initializer_range": teacher.initializer_range, "layer_norm_eps": epsilon, **dropout}
