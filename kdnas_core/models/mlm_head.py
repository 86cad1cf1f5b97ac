"""Masked-LM heads: the teacher's own, one trained for a teacher that has none, and the student's.

All have BERT's structure: a dense layer, an activation, a layer norm, and logits against the rows of the word
embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel
from transformers.activations import ACT2FN

from kdnas_core.models.families import FAMILIES
from kdnas_core.models.sources import teacher_folder
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary


class MlmHead(nn.Module):
    """Predicts words from states (tokens, H) and the rows of a word embedding (words, E)."""

    def __init__(self, hidden_size: int, embedding_size: int, words: int, act: str, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, embedding_size)
        self.norm = nn.LayerNorm(embedding_size, eps=eps)
        self.bias = nn.Parameter(torch.zeros(words))
        self.act = ACT2FN[act]
        nn.init.eye_(self.dense.weight)  # initially a state predicts the most similar word
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Returns logits (tokens, words) for states (tokens, H) and word embeddings (words, E)."""
        logits: torch.Tensor = F.linear(self.norm(self.act(self.dense(states))), table, self.bias)
        return logits


@dataclass(frozen=True)
class TeacherHead:
    """A frozen head with its word embeddings.

    Attributes:
        head: in eval mode, without gradients.
        table: (words, E).
    """

    head: MlmHead
    table: torch.Tensor

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Returns logits (tokens, words) for the teacher's last hidden states (tokens, H_T)."""
        scores: torch.Tensor = self.head(states, self.table)
        return scores

    def applied(self, function: Callable[[torch.Tensor], torch.Tensor]) -> TeacherHead:
        """Returns the head with a function applied to its tensors, as `nn.Module.to` does; it is shared."""
        return TeacherHead(self.head._apply(function), function(self.table))  # type: ignore[no-untyped-call]

    def only(self, vocabulary: Vocabulary) -> TeacherHead:
        """Returns the head for the words in use only."""
        rows = torch.from_numpy(vocabulary.rows)
        head = copy.deepcopy(self.head)
        head.bias = nn.Parameter(self.head.bias[rows], requires_grad=False)
        return TeacherHead(head, self.table[rows])


def teacher_head(teacher: Teacher) -> TeacherHead | None:
    """Returns the teacher's own masked-LM head; None if its checkpoint has none."""
    folder = teacher_folder(teacher.name)
    where: Path | str = teacher.name if folder is None else folder
    family = teacher.model.config.model_type
    model = _with_head(where, family)
    if model is None:
        return None
    dense, norm, scores = (model.get_submodule(name) for name in FAMILIES[family].head)
    assert isinstance(dense, nn.Linear) and isinstance(norm, nn.LayerNorm) and isinstance(scores, nn.Linear)
    named = FAMILIES[family].head_act
    act = "gelu" if named is None else getattr(model.config, named)
    head = MlmHead(dense.in_features, dense.out_features, scores.out_features, act, norm.eps)
    head.dense, head.norm = dense, norm
    if scores.bias is not None:
        head.bias = nn.Parameter(scores.bias.detach().clone())
    return TeacherHead(head.eval().requires_grad_(False), scores.weight.detach())


def _with_head(where: Path | str, family: str) -> PreTrainedModel | None:
    architectures: Sequence[str] = AutoConfig.from_pretrained(where).architectures or ()
    if not any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        return None  # without reading the weights again
    loaded: Any = AutoModelForMaskedLM.from_pretrained(
        where, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model, report = loaded
    parts = tuple(name.rpartition(".")[0] or name for name in FAMILIES[family].head)
    lacking = any(name.startswith(parts) for name in report["missing_keys"])
    return None if lacking else model
