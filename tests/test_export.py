from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.export import export_hf
from kdnas_core.runs.rows import Candidate, Job, Worker
from kdnas_core.runs.store import Store, files_of, opened
from kdnas_core.runs.worker import work_on
from kdnas_core.spec import DistilSpec
from tests.filled_store import TEACHER, add_episode, begin_run, judge
from tests.sentences import is_one_sentence
from tests.tiny_runs import files_in, own_machine, remember_latencies, tiny_run

LOAD = """
import json, sys
from transformers import AutoConfig, AutoModel, AutoTokenizer
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
texts = ["A dog runs.", "It is a longer sentence."]
tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
shape = list(model(**tokens).last_hidden_state.shape)
ours = sorted(name for name in sys.modules if name.startswith("kdnas"))
strays = sorted(map(str, [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]))
print(json.dumps({"config": config.to_dict(), "shape": shape, "strays": strays, "ours": ours}))
"""


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="module")
def db(
    tiny_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory, machine: None
) -> Path:
    """A store with one real search of 2 candidates."""
    spec = tiny_run(tiny_teacher, corpus_file, search={"episodes": 1, "candidates": 2, "keep_weights": "all"})
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


def test_stock_transformers_loads_an_export_in_a_clean_process(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "student"  # its parent is made too
    exported = export_hf(store, candidate.id, target)
    assert exported.verified
    assert exported.path == target
    assert exported.files == sorted(path.name for path in target.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(exported.files)
    assert exported.sha256 == hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    assert [path.name for path in target.parent.iterdir()] == ["student"], "something unfinished was left"

    child = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(target)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    architecture = candidate.architecture
    assert found["strays"] == found["ours"] == []
    assert found["shape"][-1] == architecture.hidden_size
    for field, knob in (
        ("num_hidden_layers", architecture.layers),
        ("hidden_size", architecture.hidden_size),
        ("intermediate_size", architecture.intermediate_size),
        ("num_attention_heads", architecture.attention_heads),
        ("hidden_act", architecture.hidden_act),
    ):
        assert found["config"][field] == knob
    assert "auto_map" not in found["config"]


def test_the_weights_are_the_students_alone_and_as_many_as_are_shown(
    store: Store, candidate: Candidate
) -> None:
    weights = store.files(1, candidate.id) / "model.safetensors"
    with safe_open(weights, framework="numpy") as tensors:
        names = list(tensors.keys())
        count = sum(tensors.get_tensor(name).size for name in names)
    for word in ("project", "teacher", "objective", "optimizer"):
        assert [name for name in names if word in name.lower()] == []
    assert {name.split(".")[0] for name in names} == {"embeddings", "encoder", "pooler"} & {
        name.split(".")[0] for name in names
    }
    assert count == candidate.parameters


def test_no_file_of_an_export_can_hold_code(store: Store, candidate: Candidate) -> None:
    endings = {path.suffix for path in store.files(1, candidate.id).rglob("*") if path.is_file()}
    assert endings <= {".json", ".safetensors", ".txt"}


def refused(store: Store, candidate: int, target: Path) -> str:
    with pytest.raises(BadInput) as error:
        export_hf(store, candidate, target)
    assert is_one_sentence(str(error.value))
    return str(error.value)


def test_a_folder_that_exists_is_refused_and_left_alone(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "exists already" in refused(store, candidate.id, tmp_path)
    assert "exists already" in refused(store, candidate.id, tmp_path / "mine.txt")
    assert files_in(tmp_path) == {"mine.txt": b"mine"}


def test_a_candidate_without_weights_is_refused_with_the_reason(tmp_path: Path) -> None:
    with opened(tmp_path / "runs.db") as store:
        run = begin_run(store)
        proposed, over, dropped = add_episode(
            store, run, 1, [Architecture(2, 96, 384, 12), TEACHER, Architecture(2, 192, 384, 12)]
        )
        judge(store, run, over)
        judge(store, run, dropped)
        store.update_candidate(dropped, weights=0)
        assert "is proposed" in refused(store, proposed, tmp_path / "out")
        assert "is over budget" in refused(store, over, tmp_path / "out")
        assert "keep_weights" in refused(store, dropped, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def a_student(store: Store, candidate: Candidate, spec: DistilSpec) -> Path:
    """A finished student, and the folder for its files, made with a copy of the candidate's."""
    student = store.create_student(candidate.id, spec)
    folder = store.student_files(1, student)
    shutil.copytree(store.files(1, candidate.id), folder)
    store.end(Job("students", student), "finished")
    return folder


def test_a_student_is_exported_by_its_name(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as copy:
        folder = a_student(copy, candidate, DistilSpec())
        exported = export_hf(copy, "s1", tmp_path / "target")
        assert exported.verified
        assert (tmp_path / "target" / "model.safetensors").read_bytes() == (
            folder / "model.safetensors"
        ).read_bytes()


def test_a_task_specific_student_is_exported_with_its_head_and_not_without(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    with opened(copied(store, db, tmp_path)) as copy:
        folder = a_student(copy, candidate, DistilSpec(task="packaged"))
        with pytest.raises(RuntimeError, match="not the student that was judged"):
            export_hf(copy, "s1", tmp_path / "target")
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
        model.save_pretrained(folder)
        assert export_hf(copy, "s1", tmp_path / "target").verified


def test_a_student_that_is_not_finished_is_not_exported(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as copy:
        a_student(copy, candidate, DistilSpec())
        copy._db.execute("UPDATE students SET state = 'paused'")
        with pytest.raises(BadInput, match="has no weights yet"):
            export_hf(copy, "s1", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def copied(store: Store, db: Path, folder: Path) -> Path:
    """A copy of the store and its files that may be damaged."""
    path = folder / "runs.db"
    store._db.execute("VACUUM INTO ?", [str(path)])
    shutil.copytree(files_of(db), files_of(path))
    return path


def test_weights_that_do_not_load_are_not_offered(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with opened(copied(store, db, tmp_path)) as damaged:
        weights = damaged.files(1, candidate.id) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        before = files_in(tmp_path)
        with pytest.raises(RuntimeError, match="did not load"):
            export_hf(damaged, candidate.id, target)
    assert not target.exists()
    assert files_in(tmp_path) == before


def test_another_students_weights_are_not_offered(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    other = store.candidates(1)[1]
    assert other.parameters != candidate.parameters
    with opened(copied(store, db, tmp_path)) as swapped:
        shutil.rmtree(swapped.files(1, candidate.id))
        shutil.copytree(swapped.files(1, other.id), swapped.files(1, candidate.id))
        with pytest.raises(RuntimeError, match="not the student that was judged"):
            export_hf(swapped, candidate.id, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_weights_that_were_removed_by_hand_are_missed_in_a_sentence(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as emptied:
        shutil.rmtree(emptied.files(1, candidate.id))
        sentence = refused(emptied, candidate.id, tmp_path / "target")
    assert "name another folder" not in sentence, "it is not the target that is at fault"
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_cannot_be_written_is_refused(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in refused(store, candidate.id, tmp_path / "target")
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_is_a_file_is_refused(store: Store, candidate: Candidate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert "cannot be written" in refused(store, candidate.id, tmp_path / "file" / "target")
    assert files_in(tmp_path) == {"file": b"text"}
