"""A student as it is read from a folder, and its architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.families import shape_of


def read_student(folder: Path) -> PreTrainedModel:
    """The encoder of a folder, without a head if it has one; in float32 and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a pooler that the folder lacks is the same one at each read
        model: PreTrainedModel = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    return model.eval()


def shape_of_model(model: PreTrainedModel) -> Architecture:
    """The shape of a model as `new_student` makes it: also of one with bottlenecks."""
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
