"""Scores of frozen sentence vectors by what they retrieve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

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
    told: Callable[[int, int], None] = lambda texts, of: None,
) -> dict[str, float]:
    """Returns the means over queries of what `retrieved` computes; arguments as there."""
    found = retrieved(model, tokenizer, task, sequence_length, pooling, told)
    return {metric: fmean(values) for metric, values in found.items()}


def retrieved(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Retrieval,
    sequence_length: int,
    pooling: Mode = "mean",
    told: Callable[[int, int], None] = lambda texts, of: None,
) -> dict[str, list[float]]:
    """Ranks all documents for each query by the cosine of sentence vectors; nothing is trained.

    As BEIR does (arXiv 2104.08663): gains are the grades, and a query that is itself a document does not
    find itself.

    Args:
        model: an encoder, not changed.
        tokenizer: the model's.
        task: queries and documents.
        sequence_length: the most tokens of a query, and of a document.
        pooling: of the vectors.
        told: called with the texts that are encoded, and all texts; may raise to end it.

    Returns:
        A value for each query: "ndcg@10"; "recall@10", the share of its relevant documents in the first ten.
    """
    texts = [*task.queries, *task.documents]
    vectors = normalize(sentence_vectors(model, tokenizer, texts, sequence_length, pooling, told), dim=1)
    queries, documents = vectors[: len(task.queries)], vectors[len(task.queries) :]
    gains: list[float] = []
    recalls: list[float] = []
    for start in range(0, len(queries), CHUNK):
        similarities = queries[start : start + CHUNK] @ documents.T
        for row, own in zip(similarities, task.own[start : start + CHUNK], strict=True):
            if own is not None:
                row[own] = -math.inf
        found = similarities.topk(min(BEST, len(documents)), dim=1).indices.tolist()
        for relevant, places in zip(task.relevant[start : start + CHUNK], found, strict=True):
            gains.append(_ndcg(relevant, places))
            recalls.append(len(relevant.keys() & set(places)) / len(relevant))
    return {f"ndcg@{BEST}": gains, f"recall@{BEST}": recalls}


def _ndcg(relevant: Mapping[int, float], places: Sequence[int]) -> float:
    best = sorted(relevant.values(), reverse=True)[:BEST]
    return _dcg(relevant.get(place, 0.0) for place in places) / _dcg(best)


def _dcg(grades: Iterable[float]) -> float:
    return sum(grade / math.log2(2 + place) for place, grade in enumerate(grades))
