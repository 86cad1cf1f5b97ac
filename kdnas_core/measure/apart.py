"""Pairs read apart: each sentence by itself, a head over both vectors, as sentence encoders are served."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

ANGLE = 4.0  # times the cosine: about as far as the other features reach


class Apart(PreTrainedModel):
    """An encoder of sentences with a head that tells what two of them are to each other.

    A sentence's vector is the mean of its last hidden states, of length 1. The head reads u, v, |u - v| and
    u * v (InferSent, arXiv 1705.02364, section 3.1; Sentence-BERT, arXiv 1908.10084, section 3), each times
    the square root of the width, so that their elements are about 1, and the cosine of u and v.
    """

    config_class = PreTrainedConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True  # it has no attention of its own; its encoder has what it had

    def __init__(self, encoder: PreTrainedModel, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.encoder = encoder
        self.head = nn.Linear(4 * config.hidden_size + 1, int(config.num_labels or 1))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        second_ids: torch.Tensor,
        second_mask: torch.Tensor,
    ) -> SequenceClassifierOutput:
        """(rows, classes) logits of pairs: first sentences (rows, n) and second ones (rows, m), padded."""
        u, v = self._vectors(input_ids, attention_mask), self._vectors(second_ids, second_mask)
        products = u * v
        wide = torch.cat([u, v, (u - v).abs(), products], dim=1) * u.shape[1] ** 0.5
        cosine = ANGLE * products.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.head(torch.cat([wide, cosine], dim=1)))

    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        real = mask[..., None].float()
        return F.normalize((states * real).sum(1) / real.sum(1), dim=-1)


def apart(encoder: PreTrainedModel, config: PreTrainedConfig, seed: int) -> Apart:
    """A model that reads pairs apart, in eval mode.

    Args:
        encoder: is copied.
        config: its own, with the labels of a task.
        seed: of the head's random weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Apart(copy.deepcopy(encoder).requires_grad_(True), config)
    model.train(False)
    return model
