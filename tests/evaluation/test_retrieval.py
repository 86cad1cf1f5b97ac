from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.retrieval import Retrieval
from kdnas_core.evaluation import retrieval as module
from kdnas_core.evaluation.retrieval import retrieval_scores
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of

QUERIES, DOCUMENTS, WIDTH = 100, 40, 6


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Random vectors of the queries "q0", ... and the documents "d0", ..."""
    rng = np.random.default_rng(0)
    names = [*(f"q{i}" for i in range(QUERIES)), *(f"d{i}" for i in range(DOCUMENTS))]
    found = {name: rng.normal(size=WIDTH) for name in names}

    def made_up(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        length: int,
        pooling: str,
    ) -> torch.Tensor:
        return torch.tensor(np.array([found[text] for text in texts]), dtype=torch.float32)

    monkeypatch.setattr(module, "sentence_vectors", made_up)
    return found


def reference(task: Retrieval, vectors: dict[str, np.ndarray]) -> tuple[float, float]:
    """nDCG and recall of the first ten, in float64: DCG is the sum of grade / log2(1 + place)."""

    def cosine(one: str, other: str) -> float:
        a, b = vectors[one], vectors[other]
        return float(a @ b / math.sqrt((a @ a) * (b @ b)))

    ndcg, recall = [], []
    for query, relevant in zip(task.queries, task.relevant, strict=True):
        places = sorted(range(DOCUMENTS), key=lambda d: -cosine(query, task.documents[d]))[:10]
        gains = [relevant.get(document, 0.0) for document in places]
        best = sorted(relevant.values(), reverse=True)[:10]
        dcg, ideal = (sum(g / math.log2(2 + i) for i, g in enumerate(each)) for each in (gains, best))
        ndcg.append(dcg / ideal)
        recall.append(sum(d in relevant for d in places) / len(relevant))
    return sum(ndcg) / len(ndcg), sum(recall) / len(recall)


def made_up_task(relevant: Sequence[Mapping[int, float]]) -> Retrieval:
    documents = tuple(f"d{i}" for i in range(DOCUMENTS))
    return Retrieval("made-up", tuple(f"q{i}" for i in range(len(relevant))), documents, tuple(relevant))


@pytest.mark.parametrize("most", [1, 15])
def test_scores_are_those_of_an_independent_reference(
    most: int, vectors: dict[str, np.ndarray], teacher: Teacher
) -> None:
    rng = np.random.default_rng(most)
    relevant = [
        {int(d): float(rng.integers(1, 4)) for d in rng.permutation(DOCUMENTS)[: rng.integers(1, most + 1)]}
        for _ in range(QUERIES)
    ]
    task = made_up_task(relevant)
    scores = retrieval_scores(teacher.model, teacher.tokenizer, task, 8)
    ndcg, recall = reference(task, vectors)
    assert scores == {"ndcg@10": pytest.approx(ndcg, abs=1e-6), "recall@10": pytest.approx(recall, abs=1e-6)}
    assert 0.1 < ndcg < 0.9


def test_a_real_model_finds_the_text_itself(teacher: Teacher, texts: list[str]) -> None:
    documents = tuple(texts[:60])
    same = Retrieval("same", documents, documents, tuple({i: 1.0} for i in range(60)))
    assert retrieval_scores(teacher.model, teacher.tokenizer, same, 64)["ndcg@10"] > 0.99
    others = Retrieval("others", documents, documents, tuple({59 - i: 1.0} for i in range(60)))
    assert retrieval_scores(teacher.model, teacher.tokenizer, others, 64)["recall@10"] < 0.5
