"""Captures the queries, keys and values of a stock `transformers` encoder with hooks.

The model is not changed and may use SDPA, which does not return attention scores.
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
    """The outputs of one forward pass in layers 1..M, before heads are split.

    H is the width of attention: the hidden size, or MobileBERT's `true_hidden_size`, that of its bottleneck
    (128 of 512), so that its heads are 32 wide instead of 128.

    Attributes:
        queries: M tensors (B, n, H).
        keys: M tensors (B, n, H).
        values: M tensors (B, n, H).
    """

    queries: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def clear(self) -> None:
        """Removes all tensors."""
        for kept in (self.queries, self.keys, self.values):
            kept.clear()


@contextmanager
def capture(model: PreTrainedModel) -> Iterator[Captured]:
    """Captures each forward pass of a model, with or without a head, until the end of the block.

    The yielded object holds the latest pass only; its tensors are the model's own, with their gradients.

    Args:
        model: an encoder of a known family.

    Raises:
        BadInput: the family is not known.
    """
    captured = Captured()
    modules = _modules(model, captured)
    with ExitStack() as hooks:
        hooks.enter_context(model.base_model.register_forward_pre_hook(lambda *_: captured.clear()))
        for module, kept in modules:
            hooks.enter_context(module.register_forward_hook(_keep_in(kept)))
        yield captured


def _modules(model: PreTrainedModel, captured: Captured) -> list[tuple[nn.Module, list[torch.Tensor]]]:
    """The captured modules, each with the list for its outputs."""
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
    """Refuses a number of heads that does not divide a width.

    Raises:
        BadInput: says both, and what to choose.
    """
    if heads < 1 or width % heads:
        raise BadInput(f"A width of {width} does not divide into {heads} heads; choose a divisor of {width}.")


def dot_scores(queries: torch.Tensor, keys: torch.Tensor, heads: int) -> torch.Tensor:
    """Computes pre-softmax attention scores Q K^T / sqrt(d): (B, n, H) queries and keys -> (B, heads, n, n).

    Raises:
        BadInput: `heads` does not divide H.
    """
    check_relation_heads(queries.shape[-1], heads)
    q = queries.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, n, d)
    k = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
    return q @ k.mT / math.sqrt(q.shape[-1])
