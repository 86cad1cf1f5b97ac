"""The training loop: steps of AdamW with warm-up and decay, and checkpoints.

Distillation (`trainer.py`) and fine-tuning on a task both use it; the caller computes the gradients.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kdnas_core.errors import BadInput
from kdnas_core.hardware import return_memory

WARMUP = 0.1  # share of the steps
MAX_GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01
CHECKPOINT_STEPS = 500
RETURN_S = 2  # after which unused memory is returned; that takes about 10 ms
CHECKPOINT_S = 60  # the most seconds between checkpoints where steps are slow

LayerRates = Callable[[int], float]  # student layer (0 for its embeddings) -> share of the learning rate

Tensors = dict[str, torch.Tensor]


class Diverged(RuntimeError):
    """The loss is not finite."""


def all_alike(layer: int) -> float:
    """Gives all layers the same rate."""
    return 1.0


@dataclass(frozen=True)
class Group:
    """Parameters of one layer.

    Attributes:
        parameters: the layer's.
        layer: counted from 1, 0 for the embeddings; None for parameters outside the student.
        decays: whether its matrices decay. Biases and the scales of norms never do (BERT's published code).
    """

    parameters: Sequence[nn.Parameter]
    layer: int | None = None
    decays: bool = True

    def options(self, first: int) -> list[dict[str, object]]:
        """Returns the optimiser's options: for the matrices and for all else, where there are any.

        Args:
            first: the number of the first parameter; checkpoints name them by number.
        """
        numbered = list(enumerate(self.parameters, first))
        parts = (
            ([each for each in numbered if each[1].ndim > 1], WEIGHT_DECAY if self.decays else 0.0),
            ([each for each in numbered if each[1].ndim <= 1], 0.0),
        )
        return [
            {
                "params": [parameter for _, parameter in part],
                "numbers": [number for number, _ in part],
                "layer": self.layer,
                "weight_decay": decay,
            }
            for part, decay in parts
            if part
        ]


@dataclass(frozen=True)
class Saved:
    """The checkpoint of a training.

    Attributes:
        path: of the file.
        training: a string that identifies the training.
        modules: the trained modules, by name.
    """

    path: Path
    training: str
    modules: dict[str, nn.Module]


class Loop:
    """The steps of one training.

    Args:
        groups: the trained parameters.
        steps: of the whole training.
        learning_rate: the highest, reached after the warm-up.
        saved: the checkpoint, if any.
    """

    def __init__(
        self, groups: Sequence[Group], steps: int, learning_rate: float, saved: Saved | None = None
    ) -> None:
        self.steps, self.learning_rate, self.saved = steps, learning_rate, saved
        self.parameters: list[nn.Parameter] = []
        options: list[dict[str, object]] = []
        for group in groups:
            options += group.options(first=len(self.parameters))
            self.parameters += group.parameters
        self.optimiser = torch.optim.AdamW(options, lr=learning_rate, fused=True)
        self._kept_at = self._returned_at = time.monotonic()

    def steps_saved(self) -> int:
        """Loads the checkpoint into the modules; returns its steps, 0 if there is none.

        Raises:
            BadInput: the file is of a training with other settings.
        """
        if self.saved is None or not self.saved.path.is_file():
            return 0
        return load_checkpoint(self.saved.path, self.saved.modules, self.optimiser, self.saved.training)

    def take(self, step: int, gradients: Callable[[], float], rates: LayerRates = all_alike) -> None:
        """Takes one step.

        Args:
            step: counted from 1.
            gradients: computes the step's gradients and returns its loss.
            rates: of the layers, as shares of the learning rate.

        Raises:
            Diverged: the loss is not finite.
        """
        rate = self.learning_rate * share_of_rate(step - 1, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * (1.0 if group["layer"] is None else rates(group["layer"]))
        loss = gradients()
        if not math.isfinite(loss):
            raise Diverged(f"the loss was {loss} at step {step}; a lower learning rate may help")
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if time.monotonic() - self._returned_at > RETURN_S:
            return_memory()
            self._returned_at = time.monotonic()

    def keep(self, step: int, now: bool = False) -> None:
        """Saves a checkpoint if one is due: at intervals of steps or seconds, at the end, or `now`."""
        due = step % CHECKPOINT_STEPS == 0 or time.monotonic() - self._kept_at > CHECKPOINT_S
        if self.saved and (now or due or step == self.steps):
            save_checkpoint(self.saved.path, self.saved.modules, self.optimiser, step, self.saved.training)
            self._kept_at = time.monotonic()


def share_of_rate(step: int, steps: int) -> float:
    """Returns the schedule's share of the learning rate: linear warm-up, then linear decay towards 0."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def save_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, step: int, training: str = ""
) -> None:
    """Writes a checkpoint atomically, as one safetensors file that replaces the one before.

    Args:
        path: of the file.
        modules: by name.
        optimiser: of their parameters.
        step: steps taken.
        training: a string that identifies the training.
    """
    tensors = {
        f"{name}/{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    numbers = _numbers(optimiser)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{numbers[index]}/{key}": tensor for key, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    # clones: safetensors does not write tensors that share memory, as tied weights do
    save_file(
        {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()},
        unfinished,
        metadata={"step": json.dumps(step), "training": training},
    )
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, training: str = ""
) -> int:
    """Loads a checkpoint into modules and an optimiser of the same structure; returns its step.

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
    index_of = {number: index for index, number in enumerate(_numbers(optimiser))}
    for key, tensor in _below(tensors, "optimiser").items():
        number, _, part = key.partition("/")
        state.setdefault(index_of[int(number)], {})[part] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return step


def _numbers(optimiser: torch.optim.Optimizer) -> list[int]:
    """The number of each parameter in checkpoints, in the order of the optimiser's state."""
    groups = optimiser.param_groups
    numbers = [number for group in groups for number in group.get("numbers", ())]
    return numbers or list(range(sum(len(group["params"]) for group in groups)))


def _below(tensors: Tensors, name: str) -> Tensors:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
