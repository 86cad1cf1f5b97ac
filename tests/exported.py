"""An export as the product writes it, made by hand for tests of imports."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.runs.records import Score, TeacherFacts
from kdnas_core.spec import DistilSpec, LatencySpec, RunSpec
from tests.filled_store import reading, teacher_facts

SHAPE = Architecture(2, 16, 32, 2)
SHORT = LatencySpec(budget_speedup=2.0, sequence_length=16)


def write_export(
    folder: Path, teacher: Path, *, student: DistilSpec | None = None, spec: RunSpec | None = None
) -> Path:
    """Writes the folder of an exported candidate or student, with the tokenizer of a teacher's folder."""
    model = _write_model(folder, teacher, classifies=student is not None and student.task is not None)
    spec = spec or RunSpec(name="at home", seed=5, teacher=str(teacher), latency=SHORT)
    spec = spec.filled_for(makes_vectors=False)
    manifest = manifest_of(spec, student, parameters=model)
    write_json(folder / "kdnas.json", manifest)
    (folder / "run.json").write_text(spec.to_json())
    (folder / "README.md").write_text("# A student\n")
    write_sums(folder)
    return folder


def manifest_of(spec: RunSpec, student: DistilSpec | None, parameters: int) -> dict[str, Any]:
    """The fields of kdnas.json."""
    scores = [
        Score("teacher", "packaged", "accuracy", 0, 0.9, 1e-3),
        Score("student", "packaged", "accuracy", 0, 0.8, 1e-3),
        Score("student", "packaged", "accuracy", 1, 0.7, None),
    ]
    cut = [{"layer": layer, "heads": [1, 2]} for layer in (1, 2)]
    made = {"loss": 0.125, "notes": ["One."], "languages": {"de": 0.5}, "seconds": 9.5, "step": 4, "steps": 4}
    told = {"loss_se": 0.0625, "cut_from": cut}
    return {
        "format": 1,
        "source": {"candidate": 12, "student": None if student is None else 3},
        "spec": spec.model_dump(mode="json"),
        "teacher": _facts(teacher_facts()),
        "architecture": SHAPE.to_dict(),
        "candidate": {
            "parameters": parameters,
            "flops": 2_000,
            "latency": reading(2.5).to_dict(),
            "loss": 0.25,
            "reward": 0.75,
            "scores": {"packaged (proxy)": 0.5},
            "seconds": 14.5,
            "notes": ["A note."],
            "languages": {},
            **told,
        },
        "student": student and {"spec": student.model_dump(mode="json"), **made, **told},
        "scores": [asdict(score) for score in scores],
        "checks": {"transformers": "loaded"},
    }


def _facts(facts: TeacherFacts) -> dict[str, Any]:
    latency, shape = facts.latency.to_dict(), facts.architecture.to_dict()
    return {**asdict(facts), "architecture": shape, "latency": latency}


def write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields), encoding="utf-8")


def write_sums(folder: Path) -> None:
    """Rewrites SHA256SUMS, the checksums of all other files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
    lines = [f"{sha256(path)}  {path.relative_to(folder)}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def zipped(folder: Path, top: str = "student-s3/") -> bytes:
    """Returns the folder as the zip that the page offers."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{top}{path.relative_to(folder)}")
    return packed.getvalue()


def _write_model(folder: Path, teacher: Path, *, classifies: bool) -> int:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=SHAPE.layers,
        hidden_size=SHAPE.hidden_size,
        num_attention_heads=SHAPE.attention_heads,
        intermediate_size=SHAPE.intermediate_size,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = (BertForSequenceClassification if classifies else BertModel)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
