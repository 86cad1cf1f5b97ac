"""A static student on its whole way: judged beside a search, distilled in full, scored, exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from kdnas_core.errors import BadInput
from kdnas_core.runs.names import Source
from kdnas_core.runs.store import opened
from kdnas_core.runs.student_journals import check_distillation
from kdnas_core.spec import DistilSpec, parse_spec
from tests.sentences import is_one_sentence
from tests.tiny_fields import tiny_fields
from tests.tiny_runs import called, own_machine, remember_latencies, searched, words_task


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="module")
def embedding_teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher, made for mean vectors."""
    folder = tmp_path_factory.mktemp("embedding") / "teacher"
    shutil.copytree(tiny_teacher, folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


@pytest.fixture(scope="module")
def found(
    embedding_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The output and the store of a search of two candidates, and what stands beside them."""
    fields = tiny_fields(embedding_teacher, corpus_file)
    fields["search"] = {**fields["search"], "episodes": 1, "candidates": 2}
    remember_latencies(parse_spec(fields))
    return searched(tmp_path_factory.mktemp("searched"), fields)


@pytest.mark.slow
def test_a_search_of_sentence_vectors_judges_a_static_student_first_and_beside_its_candidates(
    found: tuple[dict[str, Any], Path],
) -> None:
    summary, store = found
    assert (summary["state"], summary["candidates"], summary["failed"]) == ("finished", 3, 0)
    first, *others = called("show", 1, "--db", store)["candidates"]
    assert first["architecture"]["layers"] == 0
    assert (first["state"], first["flops"]) == ("done", 0)
    assert 0 < first["loss"] < 1
    assert "static" in first["notes"][0]
    assert all(each["architecture"]["layers"] > 0 for each in others)
    assert summary["frontier"][0]["id"] == first["id"]  # the fastest of all


@pytest.mark.slow
def test_a_static_student_is_distilled_scored_and_exported_as_any_other(
    found: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, store = found
    made = called("distill", 1, "--db", store, "--epochs", 2, "--set", "sequence_length=32")
    model = AutoModel.from_pretrained(made["path"])
    assert model.config.num_hidden_layers == 0
    assert not model.get_parameter("embeddings.position_embeddings.weight").any()  # still one vector a word
    task = words_task(tmp_path / "words")
    (score,) = called("evaluate", made["student"], "--task", task, "--seeds", 1, "--db", store)["scores"]
    assert 0 <= score["student"] <= 1
    export = called("export", made["student"], tmp_path / "out", "--format", "hf,onnx", "--db", store)
    assert export["verified"]
    imported = called("import", tmp_path / "out", "--db", tmp_path / "elsewhere.db")
    assert imported["student"]
    exported = AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(exported.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.slow
def test_a_static_student_cannot_be_distilled_for_a_task(found: tuple[dict[str, Any], Path]) -> None:
    with opened(found[1]) as store:
        source = Source(store.candidates(1)[0])
        with pytest.raises(BadInput, match="static student") as caught:
            check_distillation(store, source, DistilSpec(task="packaged"))
    assert is_one_sentence(str(caught.value))
