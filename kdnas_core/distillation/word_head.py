"""Masked-LM heads: the teacher's own, one trained for a teacher that has none, and the student's.

All have the shape of BERT's: a dense layer, an activation, a layer norm, and scores against the rows of the
word embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel
from transformers.activations import ACT2FN

from kdnas_core.distillation.losses import NOT_HIDDEN, masked_lm
from kdnas_core.distillation.sources import teacher_folder
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.distillation.vocabulary import Vocabulary

# dense layer, layer norm, scores
_ROBERTA = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder")
_PARTS = {
    "bert": (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
}
_ACTIVATION = {"bert": "hidden_act", "distilbert": "activation"}  # the others' is gelu, whatever the config

TRAIN_STEPS = 200  # more only fits the proxy set by heart
TRAIN_BATCH = 512  # hidden words
TRAIN_RATE = 2e-3
QUIET = 0.1  # of the norm's scale: what the untrained layer says is not to drown the frequencies


class WordHead(nn.Module):
    """States (tokens, H) -> what is compared with the rows of a word embedding (tokens, E)."""

    def __init__(self, hidden_size: int, embedding_size: int, words: int, act: str, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, embedding_size)
        self.norm = nn.LayerNorm(embedding_size, eps=eps)
        self.bias = nn.Parameter(torch.zeros(words))
        self.act = ACT2FN[act]
        nn.init.eye_(self.dense.weight)  # to begin with, a state stands for the word it is most like
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Logits (tokens, words) of states (tokens, H), with the words' embeddings (words, E)."""
        logits: torch.Tensor = F.linear(self.norm(self.act(self.dense(states))), table, self.bias)
        return logits


@dataclass(frozen=True)
class TeacherWords:
    """A frozen head with the embeddings of the words that it scores.

    Attributes:
        head: in eval mode, without gradients.
        table: (words, E).
    """

    head: WordHead
    table: torch.Tensor

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (tokens, words) of the teacher's last hidden states (tokens, H_T)."""
        scores: torch.Tensor = self.head(states, self.table)
        return scores

    def only(self, vocabulary: Vocabulary) -> TeacherWords:
        """The same head on the words in use alone."""
        rows = torch.from_numpy(vocabulary.rows)
        head = copy.deepcopy(self.head)
        head.bias = nn.Parameter(self.head.bias[rows], requires_grad=False)
        return TeacherWords(head, self.table[rows])


def teacher_words(teacher: Teacher) -> TeacherWords | None:
    """The teacher's own masked-LM head; None where its checkpoint holds none."""
    folder = teacher_folder(teacher.name)
    where: Path | str = teacher.name if folder is None else folder
    family = teacher.model.config.model_type
    model = _with_head(where, family)
    if model is None:
        return None
    dense, norm, scores = (model.get_submodule(name) for name in _PARTS[family])
    assert isinstance(dense, nn.Linear) and isinstance(norm, nn.LayerNorm) and isinstance(scores, nn.Linear)
    act = getattr(model.config, _ACTIVATION[family]) if family in _ACTIVATION else "gelu"
    head = WordHead(dense.in_features, dense.out_features, scores.out_features, act, norm.eps)
    head.dense, head.norm = dense, norm
    if scores.bias is not None:
        head.bias = nn.Parameter(scores.bias.detach().clone())
    return TeacherWords(head.eval().requires_grad_(False), scores.weight.detach())


def _with_head(where: Path | str, family: str) -> PreTrainedModel | None:
    architectures: Sequence[str] = AutoConfig.from_pretrained(where).architectures or ()
    if not any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        return None  # before a second reading of the weights
    given: Any = AutoModelForMaskedLM.from_pretrained(
        where, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model, report = given
    parts = tuple(name.rpartition(".")[0] or name for name in _PARTS[family])
    lacking = any(name.startswith(parts) for name in report["missing_keys"])
    return None if lacking else model


def trained_words(teacher: Teacher, train: Targets, vocabulary: Vocabulary, seed: int) -> TeacherWords:
    """A masked-LM head for a teacher that has none, trained on its last hidden states; the teacher stays.

    Tied to the teacher's word embeddings, and for the words in use only.

    Args:
        teacher: whose embeddings.
        train: with hidden words, renumbered by `vocabulary`.
        vocabulary: in use.
        seed: of the order of the words.
    """
    whole = teacher.model.get_input_embeddings().weight
    assert isinstance(whole, torch.Tensor)
    table = whole.detach()[torch.from_numpy(vocabulary.rows)]
    head = WordHead(train.width, table.shape[1], len(table), "gelu", eps=1e-12)
    _begin_with_frequencies(head, train)
    places = torch.from_numpy(train.labels != NOT_HIDDEN).nonzero()[:, 0].numpy()
    states = torch.from_numpy(train.outputs["hidden", teacher.layers][places]).float()
    labels = torch.from_numpy(train.labels[places])
    optimiser = torch.optim.AdamW(head.parameters(), lr=TRAIN_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(TRAIN_STEPS):
        some = torch.randint(len(places), (min(TRAIN_BATCH, len(places)),), generator=generator)
        masked_lm(head(states[some], table), labels[some]).backward()
        optimiser.step()
        optimiser.zero_grad()
    return TeacherWords(head.eval().requires_grad_(False), table)


@torch.no_grad()
def _begin_with_frequencies(head: WordHead, train: Targets) -> None:
    """Begins with a guess by frequency: a few hundred steps would not get the bias there."""
    words = train.ids[train.labels == NOT_HIDDEN]
    counts = torch.from_numpy(np.bincount(words, minlength=len(head.bias))).float()
    head.bias.copy_(((counts + 1) / (counts + 1).sum()).log())
    head.norm.weight.mul_(QUIET)
