"""Classifiers: an encoder with a head for a task, the task's tokenized rows, and predictions on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from kdnas_core.data.tasks import Row, Task
from kdnas_core.data.tokens import by_length
from kdnas_core.hardware import autocast_to, moved
from kdnas_core.models.static import freeze_places
from kdnas_core.models.targets import has_segments, padded

BATCH = 64  # rows of a prediction batch

ANGLE = 4.0  # scale of the cosine, about the range of the other features


@dataclass(frozen=True)
class Tokens:
    """Tokenized rows of a task.

    Attributes:
        ids: (n,) token ids of each row; of its first sentence if pairs are read apart.
        types: (n,) the segment of each token; None if no row is a pair.
        labels: (rows,) indices of classes, or scores.
        seconds: (m,) token ids of each row's second sentence; None unless pairs are read apart.
    """

    ids: list[NDArray[np.int64]]
    types: list[NDArray[np.int64]] | None
    labels: NDArray[np.float64]
    seconds: list[NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: Sequence[int]) -> Tokens:
        """Returns a subset of the rows."""
        types = None if self.types is None else [self.types[row] for row in rows]
        seconds = None if self.seconds is None else [self.seconds[row] for row in rows]
        return Tokens([self.ids[row] for row in rows], types, self.labels[list(rows)], seconds)

    def words(self) -> NDArray[np.int64]:
        """Returns the ids of all rows, concatenated."""
        return np.concatenate([*self.ids, *(self.seconds or ())])

    def renumbered(self, numbers: NDArray[np.int64]) -> Tokens:
        """Returns the same rows with the new number of each id."""
        seconds = None if self.seconds is None else [numbers[ids] for ids in self.seconds]
        return Tokens([numbers[ids] for ids in self.ids], self.types, self.labels, seconds)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(rows,) tokens of each row."""
        lengths = np.array([len(ids) for ids in self.ids])
        return lengths if self.seconds is None else lengths + [len(ids) for ids in self.seconds]

    def inputs(self, rows: Sequence[int], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Returns the padded inputs of a model with this config for some rows."""
        ids, mask = padded([self.ids[row] for row in rows], config.pad_token_id or 0)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.types is not None and has_segments(config):
            inputs["token_type_ids"] = padded([self.types[row] for row in rows], 0)[0]
        if self.seconds is not None:
            ids, mask = padded([self.seconds[row] for row in rows], config.pad_token_id or 0)
            inputs |= {"second_ids": ids, "second_mask": mask}
        return inputs


def tokens_of(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, sequence_length: int, reads_apart: bool = False
) -> Tokens:
    """Tokenizes rows, cut at `sequence_length`; of a pair the longer sentence is cut.

    Args:
        rows: of one task.
        tokenizer: the model's.
        sequence_length: in tokens; of each sentence if pairs are read apart.
        reads_apart: whether the two sentences of a pair are encoded separately.
    """
    if reads_apart:
        return _apart(rows, tokenizer, sequence_length)
    texts = [row.first if row.second is None else (row.first, row.second) for row in rows]
    encoded = tokenizer(texts, truncation=True, max_length=sequence_length)
    types = encoded.get("token_type_ids")
    has_types = types is not None and any(any(each) for each in types)
    return Tokens(
        [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]],
        [np.array(each, dtype=np.int64) for each in types] if has_types else None,
        np.array([row.label for row in rows], dtype=np.float64),
    )


def _apart(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> Tokens:
    firsts, seconds = (
        [
            np.array(ids, dtype=np.int64)
            for ids in tokenizer(texts, truncation=True, max_length=sequence_length)["input_ids"]
        ]
        for texts in ([row.first for row in rows], [row.second or "" for row in rows])
    )
    return Tokens(firsts, None, np.array([row.label for row in rows], dtype=np.float64), seconds)


def new_classifier(
    encoder: PreTrainedModel, task: Task, seed: int, reads_apart: bool = False
) -> PreTrainedModel:
    """Makes a classifier of an encoder's weights and a new head.

    It is a stock model; an `Apart`; or, of a static encoder, whose first token says nothing, an `OfMean`.

    Args:
        encoder: not changed; its pooler is copied if the head has one.
        task: its classes are the head's labels.
        seed: of the head's random weights.
        reads_apart: whether the two sentences of a pair are encoded separately.
    """
    config = copy.deepcopy(encoder.config)
    labels = list(task.classes) or ["score"]
    config.update(
        {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    )
    config.num_labels = len(labels)
    # otherwise the type of an earlier task of the encoder would remain
    config.problem_type = "regression" if task.is_regression else "single_label_classification"
    if reads_apart:
        return _with_head(Apart, encoder, config, seed)
    if config.num_hidden_layers == 0:
        return _with_head(OfMean, encoder, config, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    report = model.base_model.load_state_dict(encoder.state_dict(), strict=False)
    assert not [name for name in report.missing_keys if "pooler" not in name], report.missing_keys
    return model.eval()


def logits_of(
    model: PreTrainedModel, tokens: Tokens, autocast: torch.dtype | None = None
) -> NDArray[np.float32]:
    """Computes a classifier's (rows, classes) logits, or its (rows, 1) scores."""
    model.eval()
    logits = np.zeros((len(tokens), int(model.config.num_labels or 1)), dtype=np.float32)
    with moved(model), torch.inference_mode():
        for rows in by_length(tokens.lengths, BATCH):
            with autocast_to(autocast):
                of_rows = model(**tokens.inputs(rows, model.config)).logits
            logits[rows] = of_rows.float().cpu().numpy()
    return logits


def predictions(logits: NDArray[np.float32], task: Task) -> list[float]:
    """Returns the index of the likeliest class of each row, or its score."""
    chosen = logits[:, 0] if task.is_regression else logits.argmax(1)
    return [float(value) for value in chosen]


class Apart(PreTrainedModel):
    """A sentence encoder with a head that classifies pairs by their two vectors.

    A sentence's vector is the mean of its last hidden states, of length 1. The head reads u, v, |u - v| and
    u * v (InferSent, arXiv 1705.02364, section 3.1; Sentence-BERT, arXiv 1908.10084, section 3), each times
    the square root of the width, so that their elements are about 1, and the scaled cosine of u and v.
    """

    config_class = PreTrainedConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True  # it adds no attention; the encoder keeps its own

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
        """Computes (rows, classes) logits of padded first sentences (rows, n) and second ones (rows, m)."""
        u, v = self._vectors(input_ids, attention_mask), self._vectors(second_ids, second_mask)
        products = u * v
        wide = torch.cat([u, v, (u - v).abs(), products], dim=1) * u.shape[1] ** 0.5
        cosine = ANGLE * products.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.head(torch.cat([wide, cosine], dim=1)))

    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return _mean_vectors(self.encoder, ids, mask)


class OfMean(PreTrainedModel):
    """A sentence encoder with a head that classifies a text by its vector, as `Apart` makes it."""

    config_class = PreTrainedConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, encoder: PreTrainedModel, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.encoder = encoder
        self.head = nn.Linear(config.hidden_size, int(config.num_labels or 1))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Computes (rows, classes) logits of padded texts (rows, n); segments say nothing without layers."""
        vectors = _mean_vectors(self.encoder, input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.head(vectors * vectors.shape[1] ** 0.5))


def _mean_vectors(encoder: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    real = mask[..., None].float()
    return F.normalize((states * real).sum(1) / real.sum(1), dim=-1)


def _with_head(
    kind: type[Apart] | type[OfMean], encoder: PreTrainedModel, config: PreTrainedConfig, seed: int
) -> PreTrainedModel:
    """Makes a classifier of sentence vectors in eval mode.

    Args:
        kind: of the classifier.
        encoder: copied.
        config: the encoder's, with the labels of a task.
        seed: of the head's random weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = copy.deepcopy(encoder).requires_grad_(True)
        if config.num_hidden_layers == 0:
            freeze_places(own)
        model = kind(own, config)
    model.train(False)
    return model
