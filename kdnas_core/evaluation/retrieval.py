"""Scores of frozen sentence vectors by what they retrieve."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.retrieval import Retrieval
from kdnas_core.evaluation.zero_shot import sentence_vectors
from kdnas_core.models.pooling import Mode

BEST = 10  # documents of a query that count
CHUNK = 64  # queries that are compared with all documents at once


def retrieval_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Retrieval,
    sequence_length: int,
    pooling: Mode = "mean",
) -> dict[str, float]:
    """Ranks all documents for each query by the cosine of sentence vectors; nothing is trained.

    Args:
        model: an encoder, not changed.
        tokenizer: the model's.
        task: queries and documents.
        sequence_length: the most tokens of a query, and of a document.
        pooling: of the vectors.

    Returns:
        Means over queries: "ndcg@10" (BEIR's, with linear gains), and "recall@10", the share of the relevant
        documents among the first ten.
    """
    queries, documents = (
        normalize(sentence_vectors(model, tokenizer, texts, sequence_length, pooling), dim=1)
        for texts in (task.queries, task.documents)
    )
    gains: list[float] = []
    recalls: list[float] = []
    for start in range(0, len(queries), CHUNK):
        similarities = (queries[start : start + CHUNK] @ documents.T).numpy()
        relevant = task.relevant[start : start + CHUNK]
        gains += [_ndcg(of_one, row) for of_one, row in zip(relevant, similarities, strict=True)]
        recalls += [_recall(of_one, row) for of_one, row in zip(relevant, similarities, strict=True)]
    return {f"ndcg@{BEST}": fmean(gains), f"recall@{BEST}": fmean(recalls)}


def _ndcg(relevant: Mapping[int, float], similarities: NDArray[np.float32]) -> float:
    grades = np.zeros_like(similarities)
    grades[list(relevant)] = list(relevant.values())
    return float(ndcg_score([grades], [similarities], k=BEST))


def _recall(relevant: Mapping[int, float], similarities: NDArray[np.float32]) -> float:
    best = np.argsort(-similarities, kind="stable")[:BEST]
    return len(relevant.keys() & set(best.tolist())) / len(relevant)
