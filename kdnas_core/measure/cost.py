"""What a model costs, counted rather than timed. FLOPs are `Architecture.flops`."""

from __future__ import annotations

from torch import nn


def parameters(model: nn.Module) -> int:
    """All parameters, embeddings and pooler included; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
