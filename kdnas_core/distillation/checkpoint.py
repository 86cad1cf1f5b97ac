"""A half-trained student on the disk: weights, optimiser and how far it is, so that training can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kdnas_core.errors import BadInput

Tensors = dict[str, torch.Tensor]


def save(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, step: int, training: str = ""
) -> None:
    """Writes a checkpoint, all of it or none: one safetensors file takes the place of the one before.

    Args:
        path: of the file.
        modules: by name.
        optimiser: of their parameters.
        step: steps taken.
        training: which training it is of, in any words that tell it from others.
    """
    tensors = {
        f"{name}/{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": tensor for key, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    # clones: tied weights share memory, which safetensors does not write
    save_file(
        {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()},
        unfinished,
        metadata={"step": json.dumps(step), "training": training},
    )
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, training: str = ""
) -> int:
    """Reads a checkpoint into modules and optimiser, made as they were for `save`; returns its step.

    Raises:
        BadInput: it is of another training.
    """
    with safe_open(path, framework="pt") as file:
        written = file.metadata()
    if written["training"] != training:
        raise BadInput(
            f"{path} was saved by a training with other settings; name another file, or delete it."
        )
    step = int(json.loads(written["step"]))
    tensors = load_file(path)
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, name))
    state: dict[int, Tensors] = {}
    for key, tensor in _below(tensors, "optimiser").items():
        index, _, part = key.partition("/")
        state.setdefault(int(index), {})[part] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return step


def _below(tensors: Tensors, name: str) -> Tensors:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
