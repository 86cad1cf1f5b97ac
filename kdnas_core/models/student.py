"""A student as a model: its config, its starting weights, saving and loading."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    AutoModel,
    ElectraConfig,
    MobileBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.files import sync_files
from kdnas_core.models.cut import cut_out
from kdnas_core.models.families import field_of, first_position, shape_of
from kdnas_core.models.heads import Weights
from kdnas_core.models.importance import Importance
from kdnas_core.models.static import freeze_places, static_start
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher

DISTILBERT_EPSILON = 1e-12  # of its layer norms; its config has no such field
SEGMENTS = 2  # of a student whose layout has segments and whose teacher has none


def student_config(teacher: PreTrainedConfig, architecture: Architecture) -> PreTrainedConfig:
    """Returns the config of a student.

    A plain student is of its teacher's family. With a factorised embedding it is an ELECTRA, with bottlenecks
    a MobileBERT, with the teacher's vocabulary and usable length.

    Args:
        teacher: the teacher's config.
        architecture: the student's shape. Without `embedding_size`, the student of an ELECTRA with a
            factorised embedding keeps that size, unless it is wider than the student.
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
    """The architecture's; never None for the student of an ELECTRA, whose config needs one."""
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
    """The fields on vocabulary and positions; positions count from 0 in these layouts."""
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


def start_student(
    teacher: Teacher,
    architecture: Architecture,
    targets: Targets,
    seed: int,
    importance: Importance | None,
    sources: Sequence[int] | None = None,
    shared: Weights | None = None,
    words: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> tuple[PreTrainedModel, tuple[LayerSource, ...]]:
    """Makes a student with its starting weights; returns it and the source of each of its layers.

    Args:
        teacher: the student's teacher.
        architecture: the student's shape.
        targets: teacher outputs; the cut keeps their principal directions.
        seed: of the random weights.
        importance: of the teacher's heads and neurons, to cut the weights; None for random weights.
        sources: as for `cut_out`.
        shared: as for `cut_out`.
        words: (used,) ids of the words in use and how often each is, for a static student.

    Raises:
        BadInput: as `cut_out`.
    """
    student = new_student(teacher, architecture, seed)
    if importance is None:
        return student, ()
    if architecture.is_static:
        assert words is not None, "frequent words are weighed down"
        student.load_state_dict(static_start(teacher, student, *words), strict=False)
        return student, ()
    cut = cut_out(student, teacher, targets, importance, sources, shared)
    student.load_state_dict(cut.weights, strict=False)
    return student, cut.sources


def new_student(teacher: Teacher, architecture: Architecture, seed: int) -> PreTrainedModel:
    """Makes a student with random weights and the config of `student_config`."""
    config = student_config(teacher.model.config, architecture)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    if architecture.is_static:
        freeze_places(student)
    return student.eval()


def save(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Saves a student and its tokenizer to a folder that stock `transformers` loads."""
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sync_files(folder)  # before the store refers to them


def read_student(folder: Path) -> PreTrainedModel:
    """Loads the encoder of a folder, without a head, in float32 and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a missing pooler gets the same weights at each load
        model: PreTrainedModel = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    return model.eval()


def shape_of_model(model: PreTrainedModel) -> Architecture:
    """Returns the architecture of a student model, bottlenecks included."""
    config = model.config
    if config.model_type != "mobilebert":
        return shape_of(config.to_dict(), config.model_type)
    return Architecture(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        attention_heads=config.num_attention_heads,
        hidden_act=config.hidden_act,
        embedding_size=None if config.embedding_size == config.hidden_size else config.embedding_size,
        bottleneck_size=config.intra_bottleneck_size,
        feed_forward_networks=config.num_feedforward_networks,
        bottleneck_attention=config.use_bottleneck_attention,
    )


def parameters(model: nn.Module) -> int:
    """Counts all parameters, embeddings and pooler included; shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
