"""Scores of frozen sentence vectors: by their similarities, and by a linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.tasks import Row, Task
from kdnas_core.data.tokens import by_length
from kdnas_core.evaluation.metrics import score
from kdnas_core.hardware import compute_device, moved
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import pooled

BATCH = 64


def can_compare(task: Task) -> bool:
    """Returns whether a task's rows are pairs with scores, so that similarities can be scored on it."""
    return task.is_pair and task.is_regression


def similarity_score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    sequence_length: int,
    pooling: Mode = "mean",
) -> float:
    """Computes Spearman's correlation of the cosine of sentence vectors with human scores, -1 to 1.

    Nothing is trained. It is 0 if it is not defined; arguments and errors as for `similarities`.
    """
    found = similarities(model, tokenizer, rows, sequence_length, pooling)
    return score("spearman", [row.label for row in rows], found)


def similarities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    sequence_length: int,
    pooling: Mode = "mean",
) -> list[float]:
    """Computes the cosine of the two sentence vectors of each pair.

    Args:
        model: an encoder, not changed.
        tokenizer: the model's.
        rows: pairs with scores, higher for more similar ones.
        sequence_length: the most tokens of a sentence.
        pooling: of the vectors.

    Raises:
        ValueError: a row is not a pair.
    """
    seconds = [row.second for row in rows if row.second is not None]
    if len(seconds) < len(rows):
        raise ValueError("Rows to compare are pairs.")
    one, other = (
        sentence_vectors(model, tokenizer, texts, sequence_length, pooling)
        for texts in ([row.first for row in rows], seconds)
    )
    cosines: list[float] = cosine_similarity(one, other).tolist()
    return cosines


def probe_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[tuple[str, int]],
    test: Sequence[tuple[str, int]],
    sequence_length: int,
) -> float:
    """Fits a logistic regression on mean vectors on `train`; returns its accuracy on `test`.

    Args:
        model: an encoder, not changed.
        tokenizer: the model's.
        train: sentences with their labels.
        test: sentences with their labels.
        sequence_length: the most tokens of a sentence.
    """
    features = [
        sentence_vectors(model, tokenizer, [s for s, _ in rows], sequence_length) for rows in (train, test)
    ]
    labels = [[label for _, label in rows] for rows in (train, test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    classifier.fit(features[0].numpy(), labels[0])
    return float(classifier.score(features[1].numpy(), labels[1]))


def sentence_vectors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    sequence_length: int,
    pooling: Mode = "mean",
    told: Callable[[int, int], None] = lambda sentences, of: None,
) -> torch.Tensor:
    """Computes the (sentences, H) vectors, pooled from the last hidden states of real tokens.

    `told` is called with the number of sentences that are encoded, and of all; it may raise to end it.
    """
    vectors, encoded = torch.zeros(len(sentences), model.config.hidden_size), 0
    with moved(model), torch.inference_mode():
        for batch in by_length([len(sentence) for sentence in sentences], BATCH):
            inputs = tokenizer(
                [sentences[index] for index in batch],
                truncation=True,
                max_length=sequence_length,
                padding=True,
                return_tensors="pt",
            ).to(compute_device())
            states = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
            mask = inputs["attention_mask"]
            vectors[batch] = pooled(states[mask.bool()], mask.sum(1), pooling).cpu()
            encoded += len(batch)
            told(encoded, len(sentences))
    return vectors
