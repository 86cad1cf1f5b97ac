from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.package.export import export_student
from kdnas_core.package.layout import parse_formats
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec
from tests.filled_store import TEACHER, add_episode, begin_run, judge
from tests.package.makers import a_student, copied, refused
from tests.tiny_runs import files_in

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


def test_stock_transformers_loads_an_export_in_a_clean_process(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "student"  # its parent is made too
    exported = export_student(store, candidate.id, target)
    assert exported.path == target
    assert exported.files == sorted(files_in(target))
    assert exported.checks.onnx is None
    assert list(exported.checks.latencies) == ["onnxruntime"]
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


@pytest.mark.usefixtures("unchecked")
def test_a_student_is_exported_by_its_name_and_its_checkpoint_stays(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as copy:
        folder = a_student(copy, candidate, DistilSpec())
        (folder / "checkpoint.safetensors").write_bytes(b"half a student")
        exported = export_student(copy, "s1", tmp_path / "target")
    assert "checkpoint.safetensors" not in exported.files
    assert json.loads((tmp_path / "target" / "kdnas.json").read_text())["student"]["spec"]["epochs"] == 3
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "target" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_a_task_specific_student_is_exported_with_its_head_and_not_without(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    with opened(copied(store, db, tmp_path)) as copy:
        folder = a_student(copy, candidate, DistilSpec(task="packaged"))
        with pytest.raises(RuntimeError, match="not the student that was judged"):
            export_student(copy, "s1", tmp_path / "target")
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
        model.save_pretrained(folder)
        exported = export_student(copy, "s1", tmp_path / "target", parse_formats("onnx"))
        assert exported.checks.parameters > (candidate.parameters or 0)
        assert exported.checks.onnx is not None
        assert exported.checks.onnx.max_difference_fp32 < 1e-4
        assert exported.checks.onnx.int8_task == "packaged"
        assert not exported.has_vectors, "logits are no sentence vectors"


def test_a_student_that_is_not_finished_is_not_exported(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as copy:
        a_student(copy, candidate, DistilSpec())
        copy._db.execute("UPDATE jobs SET state = 'paused' WHERE kind = 'students'")
        with pytest.raises(BadInput, match="has no weights yet"):
            export_student(copy, "s1", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_weights_that_do_not_load_are_not_offered(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with opened(copied(store, db, tmp_path)) as damaged:
        weights = damaged.files(1, candidate.id) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        before = files_in(tmp_path)
        with pytest.raises(RuntimeError, match="loading it with transformers alone failed"):
            export_student(damaged, candidate.id, target)
    assert not target.exists()
    assert files_in(tmp_path) == before


@pytest.mark.slow
def test_another_students_weights_are_not_offered(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    other = store.candidates(1)[1]
    assert other.parameters != candidate.parameters
    with opened(copied(store, db, tmp_path)) as swapped:
        shutil.rmtree(swapped.files(1, candidate.id))
        shutil.copytree(swapped.files(1, other.id), swapped.files(1, candidate.id))
        with pytest.raises(RuntimeError, match="not the student that was judged"):
            export_student(swapped, candidate.id, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_weights_that_were_removed_by_hand_are_missed_in_a_sentence(
    store: Store, db: Path, candidate: Candidate, tmp_path: Path
) -> None:
    with opened(copied(store, db, tmp_path)) as emptied:
        shutil.rmtree(emptied.files(1, candidate.id))
        sentence = refused(emptied, candidate.id, tmp_path / "target")
    assert "name another folder" not in sentence, "it is not the target that is at fault"
    assert not (tmp_path / "target").exists()
