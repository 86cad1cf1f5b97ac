"""Names of weights: every family's by the names that BERT gives them, and back."""

from __future__ import annotations

import re

import torch

Weights = dict[str, torch.Tensor]

_DISTILBERT = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
_BERTS_OF_DISTILBERT = {theirs: own for own, theirs in _DISTILBERT.items()}
_DISTILBERT_LAYER = re.compile(r"transformer\.layer\.(\d+)\.(.+)\.(weight|bias)")
_BERT_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")


def canonical(weights: Weights, family: str) -> Weights:
    """The weights of an encoder by BERT's names.

    Args:
        weights: by the family's own names, as in the state dict of its base model.
        family: its `model_type`.
    """
    if family != "distilbert":
        return dict(weights)  # the others are named as BERT's, embeddings_project of ELECTRA aside
    return {
        _DISTILBERT_LAYER.sub(lambda found: _renamed("encoder", found, _DISTILBERT), name): weight
        for name, weight in weights.items()
    }


def own_names(weights: Weights, family: str) -> Weights:
    """The weights of an encoder by its family's own names; undoes `canonical`."""
    if family != "distilbert":
        return dict(weights)
    return {
        _BERT_LAYER.sub(lambda found: _renamed("transformer", found, _BERTS_OF_DISTILBERT), name): weight
        for name, weight in weights.items()
    }


def own_path(layer: int, module: str, family: str) -> str:
    """Where a module that BERT calls `module` is in layer 0..N-1 of a family's base model."""
    if family == "distilbert":
        return f"transformer.layer.{layer}.{_BERTS_OF_DISTILBERT[module]}"
    return f"encoder.layer.{layer}.{module}"


def _renamed(stack: str, found: re.Match[str], names: dict[str, str]) -> str:
    layer, module, kind = found.groups()
    return f"{stack}.layer.{layer}.{names[module]}.{kind}"
