"""Whole searches by the command line: families of teachers, recipes and layouts of students that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import teacher_of
from tests.tiny_families import model_of
from tests.tiny_fields import tiny_fields
from tests.tiny_runs import called, own_machine, searched

TRAINED = {"head": "trained"}
SEARCHES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("distilbert", {"recipe": "distilbert", **TRAINED}, {}, "DistilBertModel"),
    ("electra, factorised", {"recipe": "minilmv2"}, {}, "ElectraModel"),
    ("roberta", {"recipe": "tinybert", **TRAINED}, {"embedding_size": [8]}, "ElectraModel"),
    ("camembert", {"recipe": "mobilebert", **TRAINED}, {}, "CamembertModel"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("family", "objective", "space", "layout"), SEARCHES)
def test_a_search_ends_with_students_that_stock_transformers_loads(
    family: str,
    objective: dict[str, Any],
    space: dict[str, Any],
    layout: str,
    tiny_teacher: Path,
    corpus_file: Path,
    tmp_path: Path,
    machine: None,
) -> None:
    tokenizer = teacher_of(tiny_teacher).tokenizer
    folder = tmp_path / "teacher"
    model_of(family, len(tokenizer), tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    fields = tiny_fields(folder, corpus_file)
    spec = fields | {
        "space": fields["space"] | space,
        "objective": objective,
        # ONNX graphs of every family are tested in latency/test_graphs.py
        "latency": {"budget_ms": 1_000.0, "sequence_length": 16, "runtime": "torch"},
        # at random: a surrogate begins with a space's corners, and few steps teach the smallest nothing
        "search": {"episodes": 1, "candidates": 2, "keep_weights": "all", "controller": "random"},
    }
    summary, store = searched(tmp_path, spec)
    assert (summary["state"], summary["candidates"], summary["failed"]) == ("finished", 2, 0)
    candidate = summary["frontier"][0]
    assert 0 < candidate["loss"] < 1
    exported = called("export", candidate["id"], tmp_path / "student", "--db", store)
    assert exported["verified"]
    config = json.loads((tmp_path / "student" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [layout]
