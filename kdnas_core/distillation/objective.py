"""The KD-NAS objective: each student layer learns its teacher layers through a learnable projection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from kdnas_core.distillation.losses import normalised_mse
from kdnas_core.distillation.targets import Batch, Targets

RIDGE = 1e-4  # of the mean square of the student's states: keeps the least squares solvable


class HiddenStateObjective(nn.Module):
    """Multi-layer hidden-state distillation (KD-NAS, arXiv 2303.09639).

    Layer i's projection W_i maps H_S to one H_T for each of its teacher layers. "per_layer" gives each layer
    its own, "shared" one to all.
    """

    def __init__(
        self,
        layers: Sequence[tuple[int, ...]],
        hidden_size: int,
        teacher_hidden_size: int,
        projection: Literal["per_layer", "shared"],
    ) -> None:
        super().__init__()
        self.layers = list(layers)
        self.width = teacher_hidden_size
        self.shared = projection == "shared"
        count = 1 if self.shared else len(self.layers)
        shape = (hidden_size, len(self.layers[0]) * self.width)
        self.projections = [nn.Linear(*shape) for _ in range(count)]
        self._registered = nn.ModuleList(self.projections)  # so that `parameters` finds them

    def forward(self, states: Sequence[torch.Tensor], batch: Batch, targets: Targets) -> torch.Tensor:
        """Losses (M, teacher layers of each) of one batch; their mean is the loss that is trained.

        Args:
            states: M student layers' outputs (B, n, H_S), padding included.
            batch: with the mask that takes the padding out.
            targets: whose variances normalise the losses.
        """
        real = batch.mask.bool()
        return torch.stack(
            [
                self._layer_losses(layer, state[real].float(), batch, targets)
                for layer, state in enumerate(states)
            ]
        )

    def _layer_losses(self, layer: int, state: torch.Tensor, batch: Batch, targets: Targets) -> torch.Tensor:
        predictions = self._projection(layer)(state).unflatten(1, (-1, self.width))  # (tokens, roles, H_T)
        losses = [
            normalised_mse(predictions[:, role], batch.hidden[:, t - 1], float(targets.variance[t - 1]))
            for role, t in enumerate(self.layers[layer])
        ]
        return torch.stack(losses)

    def _projection(self, layer: int) -> nn.Linear:
        return self.projections[0 if self.shared else layer]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Sequence[torch.Tensor], Batch]]) -> None:
        """Sets the projections to the least-squares solution for the student as it is.

        Args:
            batches: student states, as for `forward`, with their batch.
        """
        count, size = len(self.projections), self.projections[0].in_features + 1
        gram = torch.zeros(count, size, size, dtype=torch.float64)
        cross = torch.zeros(count, size, self.projections[0].out_features, dtype=torch.float64)
        for states, batch in batches:
            for layer, state in enumerate(states):
                seen = state[batch.mask.bool()].double()
                seen = torch.cat([seen, torch.ones(len(seen), 1, dtype=torch.float64)], dim=1)  # for the bias
                wanted = torch.cat([batch.hidden[:, t - 1] for t in self.layers[layer]], dim=1).double()
                row = 0 if self.shared else layer
                gram[row] += seen.T @ seen
                cross[row] += seen.T @ wanted
        for projection, left, right in zip(self.projections, gram, cross, strict=True):
            ridge = RIDGE * left.diagonal().mean()
            # one at a time: the batched solve fails on some builds of MKL
            weights = torch.linalg.solve(left + ridge * torch.eye(size), right).float()
            projection.weight.copy_(weights[:-1].T)
            projection.bias.copy_(weights[-1])
