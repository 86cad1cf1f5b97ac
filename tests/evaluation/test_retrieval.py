from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
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
        told: object,
    ) -> torch.Tensor:
        assert pooling == "cls"
        return torch.tensor(np.array([found[text] for text in texts]), dtype=torch.float32)

    monkeypatch.setattr(module, "sentence_vectors", made_up)
    return found


def reference(task: Retrieval, vectors: dict[str, np.ndarray]) -> tuple[float, float]:
    """nDCG by scikit-learn and recall of the first ten, by cosines in float64."""
    ndcg, recall = [], []
    for query, relevant, own in zip(task.queries, task.relevant, task.own, strict=True):
        a, grades = vectors[query], np.zeros(DOCUMENTS)
        cosines = np.array(
            [a @ vectors[d] / math.sqrt((a @ a) * (vectors[d] @ vectors[d])) for d in task.documents]
        )
        if own is not None:
            cosines[own] = -2
        grades[list(relevant)] = list(relevant.values())
        ndcg.append(ndcg_score([grades], [cosines], k=10))
        first = set(np.argsort(-cosines)[:10].tolist())
        recall.append(len(first & relevant.keys()) / len(relevant))
    return float(np.mean(ndcg)), float(np.mean(recall))


def made_up_task(relevant: Sequence[Mapping[int, float]], own: Sequence[int | None]) -> Retrieval:
    documents = tuple(f"d{i}" for i in range(DOCUMENTS))
    queries = tuple(f"q{i}" for i in range(len(relevant)))
    return Retrieval("made-up", "", queries, documents, tuple(relevant), tuple(own))


@pytest.mark.parametrize("most", [1, 15])
def test_scores_are_those_of_an_independent_reference(
    most: int, vectors: dict[str, np.ndarray], teacher: Teacher
) -> None:
    rng = np.random.default_rng(most)
    order = [rng.permutation(DOCUMENTS).tolist() for _ in range(QUERIES)]
    relevant = [
        {int(d): float(rng.integers(1, 4)) for d in each[: rng.integers(1, most + 1)]} for each in order
    ]
    own = [each[-1] if place % 2 else None for place, each in enumerate(order)]
    for place, document in enumerate(own):
        if document is not None:  # the query's own text is most like it
            vectors[f"d{document}"] = vectors[f"q{place}"] * 2
    task = made_up_task(relevant, own)
    scores = retrieval_scores(teacher.model, teacher.tokenizer, task, 8, "cls")
    ndcg, recall = reference(task, vectors)
    assert scores == {"ndcg@10": pytest.approx(ndcg, abs=1e-6), "recall@10": pytest.approx(recall, abs=1e-6)}


def test_a_real_model_finds_the_text_itself_unless_it_is_the_query(
    teacher: Teacher, texts: list[str]
) -> None:
    documents, told = tuple(texts[:60]), list[tuple[int, int]]()
    each = tuple({i: 1.0} for i in range(60))
    same = Retrieval("same", "", documents, documents, each, (None,) * 60)
    scores = retrieval_scores(
        teacher.model, teacher.tokenizer, same, 64, told=lambda *given: told.append(given)
    )
    assert scores["ndcg@10"] > 0.99
    assert told[-1] == (120, 120)
    left_out = Retrieval("left out", "", documents, documents, each, tuple(range(60)))
    assert retrieval_scores(teacher.model, teacher.tokenizer, left_out, 64)["recall@10"] == 0.0
