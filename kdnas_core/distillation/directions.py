"""The directions in which a teacher's vectors lie most, found once for each teacher."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core.distillation.targets import Targets

PCA_TOKENS = 20_000

# All directions of what is still alive, by its id: of targets' states and of models' words.
_FOUND: dict[int, torch.Tensor] = {}


def principal_directions(targets: Targets, count: int) -> torch.Tensor:
    """P (H, count): the directions in which the hidden states of all teacher layers together lie most.

    Not centred, so that their mean is kept too. The identity where nothing is to be left out.
    """
    return _first(targets, targets.width, count, lambda: _gram_of_layers(targets.states_sample(PCA_TOKENS)))


def word_directions(model: PreTrainedModel, count: int) -> torch.Tensor:
    """The same (E, count) of the rows of a model's table of words (V, E), each row once."""
    table = model.get_input_embeddings().get_parameter("weight").detach()
    return _first(model, table.shape[1], count, lambda: table.T @ table)


def _gram_of_layers(states: NDArray[np.float16]) -> torch.Tensor:
    """(tokens, N, H) -> (H, H), layer by layer, since all in float32 would take gigabytes."""
    layers = (torch.from_numpy(states[:, layer]).float() for layer in range(states.shape[1]))
    return torch.stack([layer.T @ layer for layer in layers]).sum(0)


def _first(owner: object, width: int, count: int, gram: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The first `count` eigenvectors of a Gram matrix, which is made where `owner` has none yet."""
    if count >= width:
        return torch.eye(width, count)
    if id(owner) not in _FOUND:
        vectors = torch.linalg.eigh(gram()).eigenvectors  # by rising eigenvalue
        _FOUND[id(owner)] = vectors.flip(1)
        weakref.finalize(owner, _FOUND.pop, id(owner))
    return _FOUND[id(owner)][:, :count].contiguous()
