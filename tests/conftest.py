"""Fixtures of many tests: a tiny real teacher, a small real corpus, and a separate cache."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from filelock import FileLock

from tests.tiny_fields import tiny_fields

# before the product is imported: no test may read or change this machine's caches
_CACHE = tempfile.mkdtemp(prefix="kdnas-tests-")
os.environ["KDNAS_CACHE"] = _CACHE

# what takes long is made once for all processes of a test run
_SHARED = Path(tempfile.gettempdir()) / f"kdnas-tests-{os.getuid()}"
_SHARED.mkdir(mode=0o700, exist_ok=True)
os.environ.setdefault("KDNAS_TESTS_SHARED", str(_SHARED))
if "PYTEST_XDIST_WORKER" in os.environ:  # one process of several, as many as cores
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # more threads would fight for them
    # each process has its own device lock, so that no test waits for the training of another process
    _OWN = tempfile.mkdtemp(prefix=f"kdnas-{os.environ['PYTEST_XDIST_WORKER']}-")
    os.environ["TMPDIR"] = tempfile.tempdir = _OWN
    atexit.register(shutil.rmtree, _OWN, ignore_errors=True)

SENTENCES = 400
LONGEST = (
    "tests/test_quick_search.py",
    "tests/runs/test_worker.py",
    "tests/test_recipe_searches.py",
    "tests/distillation/test_trainer.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the longest files to the front, so that no process of a test run ends with one alone."""
    last = len(LONGEST)
    items.sort(key=lambda item: next((i for i, f in enumerate(LONGEST) if item.nodeid.startswith(f)), last))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """A few hundred sentences of real English: Python's own help topics."""
    sentences = [" ".join(part.split()) for topic in topics.topics.values() for part in topic.split(". ")]
    return list(dict.fromkeys(text for text in sentences if 40 < len(text) < 300))[:SENTENCES]


@pytest.fixture(scope="session")
def corpus_file(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sentences as a local corpus."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_teacher(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of 4 layers, width 32, 4 heads, and a tokenizer trained on the texts."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("teacher")
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=600, show_progress=False)
    trained.save_model(str(folder))
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=trained.get_vocab_size(),
        num_hidden_layers=4,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,  # wide enough that the layers do something
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def harvested() -> Path:
    """A folder with only the harvest of this machine, made once for all test processes."""
    from kdnas_core.data.harvest import harvest

    with FileLock(_SHARED / "harvest.lock"):
        harvest(_SHARED / "harvest")
    return _SHARED / "harvest"


@pytest.fixture
def tiny_spec(tiny_teacher: Path, corpus_file: Path) -> dict[str, Any]:
    """Fields of a RunSpec whose search takes seconds."""
    return tiny_fields(tiny_teacher, corpus_file)


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
