"""One tiny search for all tests of exports, of a teacher that is made for sentence vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnas_core.package import export
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.worker import work_on
from tests.package.makers import CHECKS, fill_packaged_task
from tests.tiny_runs import own_machine, remember_latencies, tiny_run

CARD = "---\nlicense: mit\nlanguage: [en, de]\n---\n# A teacher\n"


@pytest.fixture(scope="package", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="package")
def embedding_teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher with what sentence-transformers writes beside a model: first tokens, normalised."""
    folder = tmp_path_factory.mktemp("embedding") / "teacher"
    shutil.copytree(tiny_teacher, folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="package")
def db(
    embedding_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory, machine: None
) -> Path:
    """A store with one real search of 2 candidates."""
    spec = tiny_run(
        embedding_teacher, corpus_file, search={"episodes": 1, "candidates": 2, "keep_weights": "all"}
    )
    remember_latencies(spec)
    path = tmp_path_factory.mktemp("searched") / "runs.db"
    with opened(path) as store:
        run = store.run(store.create_run(spec, Worker.this_process()))
        assert run is not None
        assert work_on(store, run) == "finished"
    return path


@pytest.fixture
def store(db: Path) -> Iterator[Store]:
    with opened(db) as store:
        yield store


@pytest.fixture
def candidate(store: Store) -> Candidate:
    candidate = store.candidates(1)[0]
    assert candidate.state == "done"
    return candidate


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the checks, which take longest, by made-up results."""
    monkeypatch.setattr(export, "checked", lambda folder, facts, onnx, say: CHECKS)


@pytest.fixture(scope="package", autouse=True)
def packaged_task(machine: None, texts: list[str]) -> None:
    """A packaged task that needs no harvest."""
    fill_packaged_task(texts)
