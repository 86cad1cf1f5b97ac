"""One export with all formats, made once; each test checks a part of it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from kdnas_core.errors import Failure
from kdnas_core.package.checking import SENTENCES
from kdnas_core.package.checks import Exported, read_export
from kdnas_core.package.clean import with_onnxruntime
from kdnas_core.package.export import export_student
from kdnas_core.package.layout import parse_formats, write_zip
from kdnas_core.package.onnx_checks import OnnxModel
from kdnas_core.runs.records import Candidate, Score
from kdnas_core.runs.store import opened
from kdnas_core.spec import ScoreSpec, parse_spec_json

pytestmark = pytest.mark.slow

TEXTS = ["A dog runs.", "It is a much longer sentence than that.", "No."]


@pytest.fixture(scope="module")
def made(db: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Candidate, list[str]]:
    said: list[str] = []
    with opened(db) as store:
        candidate = store.candidate(store.candidates(1)[0].id)
        scoring = store.create_scoring(ScoreSpec(tasks=["packaged"]), candidate=candidate.id)
        store.add_scores(
            scoring,
            [Score("student", "sst2", "accuracy", 0, 0.8), Score("teacher", "sst2", "accuracy", 0, 0.9)],
        )
        store._db.execute("UPDATE jobs SET state = 'finished' WHERE kind = 'scorings'")
        target = tmp_path_factory.mktemp("whole") / "my student 🙂"
        exported = export_student(store, candidate.id, target, parse_formats("onnx,zip"), said.append)
    return exported, candidate, said


@pytest.fixture
def exported(made: tuple[Exported, Candidate, list[str]]) -> Exported:
    return made[0]


@pytest.fixture
def record(exported: Exported) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((exported.path / "kdnas.json").read_text())
    return found


def states_in_float64(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns stock transformers' last hidden states in float64, (3, length, H), and the real tokens."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**tokens).last_hidden_state.numpy(), tokens["attention_mask"].numpy()


def test_it_has_what_each_library_looks_for(exported: Exported) -> None:
    assert set(exported.files) >= {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"),
        *("run.json", "kdnas.json", "SHA256SUMS", "onnx/model.onnx", "onnx/model_int8.onnx"),
        *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
    }
    assert not [name for name in exported.files if "checkpoint" in name]


def test_the_onnx_file_gives_what_float64_gives_on_a_padded_batch(exported: Exported) -> None:
    states, mask = states_in_float64(exported.path)
    assert (mask == 0).any()
    tokens = AutoTokenizer.from_pretrained(exported.path)(TEXTS, padding=True, return_tensors="pt")
    config = AutoModel.from_pretrained(exported.path).config
    found = OnnxModel(exported.path / "onnx/model.onnx", config)(**tokens).last_hidden_state.numpy()
    assert np.abs(found - states).max() < 1e-4
    assert exported.checks.onnx is not None
    assert 0 < exported.checks.onnx.max_difference_fp32 < 1e-4
    assert exported.checks.onnx.max_difference_int8 > exported.checks.onnx.max_difference_fp32


def test_both_onnx_files_take_any_batch_and_length(exported: Exported) -> None:
    for name in ("model.onnx", "model_int8.onnx"):
        graph = onnx.load(exported.path / "onnx" / name).graph
        for put in graph.input:
            assert [dim.dim_param != "" for dim in put.type.tensor_type.shape.dim] == [True, True]
    int8 = onnx.load(exported.path / "onnx/model_int8.onnx").graph
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in int8.initializer}


def test_int8_is_scored_on_the_packaged_task(exported: Exported) -> None:
    check = exported.checks.onnx
    assert check is not None
    assert check.int8_task == "packaged (linear probe)"
    assert check.score_fp32 is not None
    assert check.score_int8 is not None
    assert check.score_fp32 > 0.6, "two libraries that a word tells apart"
    assert check.int8_retained == pytest.approx(check.score_int8 / check.score_fp32)


@pytest.mark.slow
def test_sentence_transformers_makes_vectors_as_the_teacher_does(exported: Exported) -> None:
    """Runs in a process without this project: normalised first tokens, of at most 48 tokens."""
    code = (
        "import json, sys; from sentence_transformers import SentenceTransformer as S; m = S(sys.argv[1]); "
        "print(json.dumps([m.encode(json.loads(sys.argv[2])).tolist(), m.max_seq_length]))"
    )
    child = subprocess.run(
        [sys.executable, "-I", "-c", code, str(exported.path), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    vectors, length = json.loads(child.stdout.splitlines()[-1])
    first = states_in_float64(exported.path)[0][:, 0]
    np.testing.assert_allclose(vectors, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5)
    assert length == 48
    assert exported.checks.sentence_transformers is not None


def test_onnxruntime_alone_makes_the_same_vectors_with_the_stored_tokenizer(exported: Exported) -> None:
    states, mask = states_in_float64(exported.path)
    session = onnxruntime.InferenceSession(exported.path / "onnx/model.onnx")
    batch = with_onnxruntime.tokenizer_of(exported.path, 48).encode_batch(TEXTS)
    mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(with_onnxruntime.outputs(session, batch, "mean"), mean, atol=1e-5)
    largest = np.where(mask[:, :, None] == 0, -np.inf, states).max(1)
    np.testing.assert_allclose(with_onnxruntime.outputs(session, batch, "max"), largest, atol=1e-5)
    assert json.loads((exported.path / "tokenizer.json").read_text())["truncation"] is None


def test_the_latency_is_measured_again_in_every_runtime(exported: Exported) -> None:
    latencies = exported.checks.latencies
    assert list(latencies) == ["onnxruntime", "onnxruntime-int8", "torch"]
    for runtime, reading in latencies.items():
        assert (reading.runtime, reading.sequence_length, reading.threads) == (runtime, 16, 1)
        assert len(reading.samples) >= 100
        assert reading.p50 <= reading.p95
    assert latencies["onnxruntime-int8"].dtype == "int8"


def test_the_record_has_the_form_that_an_importer_reads(
    record: dict[str, Any], made: tuple[Exported, Candidate, list[str]]
) -> None:
    _, candidate, _ = made
    assert set(record) == {
        *("format", "source", "spec", "teacher", "architecture", "candidate", "student", "scores", "checks"),
    }
    assert record["format"] == 1
    assert record["source"] == {"candidate": candidate.id, "student": None}
    assert record["architecture"] == candidate.architecture.to_dict()
    assert set(record["teacher"]) == {"name", "architecture", "parameters", "flops", "latency"}
    assert record["candidate"]["loss"] == candidate.loss
    assert record["candidate"]["latency"] == (candidate.latency and candidate.latency.to_dict())
    assert record["scores"][0] == {
        **{"subject": "student", "task": "sst2", "metric": "accuracy"},
        **{"seed": 0, "value": 0.8, "rate": None, "error": None, "chance": None},
    }


def test_the_run_can_be_made_again_from_its_spec(exported: Exported, db: Path) -> None:
    with opened(db, read_only=True) as store:
        assert parse_spec_json((exported.path / "run.json").read_text()) == store.run(1).spec


def test_the_card_says_where_it_comes_from(
    exported: Exported, made: tuple[Exported, Candidate, list[str]]
) -> None:
    card = ModelCard.load(exported.path / "README.md")
    assert card.data.license == "mit"
    assert card.data.language == ["en", "de"]
    assert card.data.library_name == "sentence-transformers"
    text = " ".join(card.text.split())
    _, candidate, _ = made
    for part in (
        *("Licence of the teacher: mit", "data fingerprint `", "Seed: 7 of the search", "88.9"),
        *("| hidden | 1 |", "8-bit weights it keeps", "sha256sum -c SHA256SUMS", "runs in turns"),
        *(f"hidden size {candidate.architecture.hidden_size}", "SentenceTransformer(", "onnxruntime-int8"),
    ):
        assert part in text, part


def test_the_checksums_are_those_of_all_files(exported: Exported) -> None:
    assert set(exported.checksums) == {*exported.files} - {"SHA256SUMS"}
    child = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=exported.path, capture_output=True, check=False
    )
    assert child.returncode == 0, child.stderr


def test_the_zip_holds_the_folder_and_is_refused_once_a_file_was_changed(
    exported: Exported, tmp_path: Path
) -> None:
    assert exported.zip is not None
    with zipfile.ZipFile(exported.zip) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [f"{exported.path.name}/{name}" for name in exported.files]
        archive.extractall(tmp_path)
    copy = tmp_path / exported.path.name
    assert read_export(copy).checksums == exported.checksums
    (copy / "config.json").write_text("{}")
    with pytest.raises(Failure, match=r"config\.json of .* was changed"):
        write_zip(copy, tmp_path / "again.zip")


def test_progress_is_told_in_the_order_of_the_steps(made: tuple[Exported, Candidate, list[str]]) -> None:
    said = list(dict.fromkeys(made[2]))
    order = ["copying", "loading it with transformers alone", "writing the ONNX file"]
    order += ["loading it with sentence transformers alone", "writing the zip"]
    places = [said.index(step) for step in order]
    assert places == sorted(places)


def test_the_weights_are_those_that_were_judged(exported: Exported, db: Path) -> None:
    with opened(db, read_only=True) as store:
        ours = load_file(store.files(1, 1) / "model.safetensors")
    theirs = load_file(exported.path / "model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_the_samples_are_of_several_lengths() -> None:
    assert len({len(sentence) for sentence in SENTENCES}) > 10
