"""Queries, keys and values as a stock `transformers` encoder computes them, read by hooks.

The model's code and settings stay as they are: it may compute its attention with SDPA, which gives none out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kdnas_core.errors import BadInput
from kdnas_core.models.families import BOTTLENECKS, FAMILIES, own_path


@dataclass(frozen=True)
class Captured:
    """What one forward pass computed in layers 1..M, before heads are split.

    H is the width of attention: the hidden size, but MobileBERT's `true_hidden_size`, that of its bottleneck
    (128 of 512), so that its heads are 32 wide and not 128.

    Attributes:
        queries: M tensors (B, n, H).
        keys: M tensors (B, n, H).
        values: M tensors (B, n, H).
    """

    queries: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all."""
        for kept in (self.queries, self.keys, self.values):
            kept.clear()


@contextmanager
def capture(model: PreTrainedModel) -> Iterator[Captured]:
    """Captures each forward pass of a model, with or without a head on it, until the end of the block.

    What is yielded holds the latest pass only; its tensors are the model's own, with their gradients.

    Args:
        model: any encoder of a family in the table.

    Raises:
        BadInput: the family is not in the table.
    """
    captured = Captured()
    modules = _modules(model, captured)
    with ExitStack() as hooks:
        hooks.enter_context(model.base_model.register_forward_pre_hook(lambda *_: captured.clear()))
        for module, kept in modules:
            hooks.enter_context(module.register_forward_hook(_keep_in(kept)))
        yield captured


def _modules(model: PreTrainedModel, captured: Captured) -> list[tuple[nn.Module, list[torch.Tensor]]]:
    """The modules whose outputs are captured, each with the list that takes them."""
    family = model.config.model_type
    if family not in (*FAMILIES, BOTTLENECKS):
        known = ", ".join((*FAMILIES, BOTTLENECKS))
        raise BadInput(f"The attention of a {family!r} model cannot be read; use one of these: {known}.")
    kept = {"query": captured.queries, "key": captured.keys, "value": captured.values}
    return [
        (model.base_model.get_submodule(own_path(layer, f"attention.self.{part}", family)), taken)
        for layer in range(model.config.num_hidden_layers)
        for part, taken in kept.items()
    ]


def _keep_in(kept: list[torch.Tensor]) -> Callable[[nn.Module, Any, torch.Tensor], None]:
    def hook(module: nn.Module, arguments: Any, output: torch.Tensor) -> None:
        kept.append(output)

    return hook


def check_relation_heads(width: int, heads: int) -> None:
    """Refuse a number of heads that a width does not divide into.

    Raises:
        BadInput: says both, and what would do.
    """
    if heads < 1 or width % heads:
        raise BadInput(f"A width of {width} does not divide into {heads} heads; choose a divisor of {width}.")


def dot_scores(queries: torch.Tensor, keys: torch.Tensor, heads: int) -> torch.Tensor:
    """Pre-softmax attention scores Q K^T / sqrt(d) of (B, n, H) queries and keys -> (B, heads, n, n).

    Raises:
        BadInput: H does not divide into `heads`.
    """
    check_relation_heads(queries.shape[-1], heads)
    q = queries.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, n, d)
    k = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
    return q @ k.mT / math.sqrt(q.shape[-1])
