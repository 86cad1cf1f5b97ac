"""The training loop: steps of AdamW with warm-up and decay, from where a saved training ended. The only one.

What is learnt is the caller's: distillation (`trainer.py`) and fine-tuning on a task both train by it.
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

WARMUP = 0.1  # share of the steps
MAX_GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01
CHECKPOINT_STEPS = 500
CHECKPOINT_S = 60  # where steps are slow, a kill loses no more than this

LayerRates = Callable[[int], float]  # a student layer, 0 for its embeddings -> share of the learning rate

Tensors = dict[str, torch.Tensor]


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def all_alike(layer: int) -> float:
    """The rates of layers that all learn alike."""
    return 1.0


@dataclass(frozen=True)
class Group:
    """Parameters of one layer.

    Attributes:
        parameters: of it.
        layer: counted from 1; None for what is in no layer of a student.
        decays: whether its matrices decay. Biases and the scales of norms never do (BERT's published code).
    """

    parameters: Sequence[nn.Parameter]
    layer: int | None = None
    decays: bool = True

    def options(self) -> list[dict[str, object]]:
        """Of the optimiser, for each parameter: in their order, by which a checkpoint knows them."""
        return [
            {
                "params": [parameter],
                "layer": self.layer,
                "weight_decay": WEIGHT_DECAY if self.decays and parameter.ndim > 1 else 0.0,
            }
            for parameter in self.parameters
        ]


@dataclass(frozen=True)
class Saved:
    """Where a training keeps how far it is.

    Attributes:
        path: of the file.
        training: which training it is, in any words that tell it from others.
        modules: all that is trained, by name.
    """

    path: Path
    training: str
    modules: dict[str, nn.Module]


class Loop:
    """The steps of one training.

    Args:
        groups: all that is trained.
        steps: of the whole training.
        learning_rate: the highest, reached after the warm-up.
        saved: where it is kept, if anywhere.
    """

    def __init__(
        self, groups: Sequence[Group], steps: int, learning_rate: float, saved: Saved | None = None
    ) -> None:
        self.steps, self.learning_rate, self.saved = steps, learning_rate, saved
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        options = [each for group in groups for each in group.options()]
        self.optimiser = torch.optim.AdamW(options, lr=learning_rate, fused=True)
        self._kept_at = time.monotonic()

    def steps_saved(self) -> int:
        """Reads how far an earlier training came into the modules; returns its steps, 0 for none.

        Raises:
            BadInput: the file is of a training with other settings.
        """
        if self.saved is None or not self.saved.path.is_file():
            return 0
        return load_checkpoint(self.saved.path, self.saved.modules, self.optimiser, self.saved.training)

    def take(self, step: int, gradients: Callable[[], float], rates: LayerRates = all_alike) -> None:
        """Takes one step.

        Args:
            step: which, counted from 1.
            gradients: adds up the step's gradients and returns its loss.
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

    def keep(self, step: int, now: bool = False) -> None:
        """Saves how far it is, if it is to be saved: every so many steps or seconds, at the end, or now."""
        due = step % CHECKPOINT_STEPS == 0 or time.monotonic() - self._kept_at > CHECKPOINT_S
        if self.saved and (now or due or step == self.steps):
            save_checkpoint(self.saved.path, self.saved.modules, self.optimiser, step, self.saved.training)
            self._kept_at = time.monotonic()


def share_of_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay towards 0."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def save_checkpoint(
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


def load_checkpoint(
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
