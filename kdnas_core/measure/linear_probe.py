"""What a linear classifier makes of a model's sentence vectors: a quick score of a model left as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.distillation.batches import by_length

BATCH = 64


def probe_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[tuple[str, int]],
    test: Sequence[tuple[str, int]],
    sequence_length: int,
) -> float:
    """Accuracy on `test` of a logistic regression on mean vectors, fitted on `train`.

    Args:
        model: an encoder, not changed.
        tokenizer: its own.
        train: sentences with their labels.
        test: sentences with their labels.
        sequence_length: at which sentences are cut, in tokens.
    """
    features = [
        sentence_vectors(model, tokenizer, [s for s, _ in rows], sequence_length) for rows in (train, test)
    ]
    labels = [[label for _, label in rows] for rows in (train, test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    classifier.fit(features[0].numpy(), labels[0])
    return float(classifier.score(features[1].numpy(), labels[1]))


@torch.inference_mode()
def sentence_vectors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    sequence_length: int,
) -> torch.Tensor:
    """(sentences, H): the mean of the last hidden states over real tokens."""
    vectors = torch.zeros(len(sentences), model.config.hidden_size)
    for some in by_length([len(sentence) for sentence in sentences], BATCH):
        inputs = tokenizer(
            [sentences[index] for index in some],
            truncation=True,
            max_length=sequence_length,
            padding=True,
            return_tensors="pt",
        )
        states = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        vectors[some] = (states * mask).sum(1) / mask.sum(1)
    return vectors
