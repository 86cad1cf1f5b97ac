"""An exported student elsewhere: in fresh environments that hold one stock library each, and nothing of ours.

`python -m benchmarks.elsewhere FOLDER [--only LIBRARY]` makes virtual environments with the product's pins,
uses the student in each on 64 sentences in padded batches, by the scripts of `kdnas_core/package/clean/` that
import nothing of this project, and holds the vectors against those of the product itself.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdnas_core.evaluation.classifier import Tokens, logits_of
from kdnas_core.evaluation.zero_shot import sentence_vectors
from kdnas_core.models.student import read_student
from kdnas_core.package.checking import SENTENCES, longest
from kdnas_core.package.checks import read_export

ROOT = Path(__file__).resolve().parents[1]
CLEAN = ROOT / "kdnas_core" / "package" / "clean"
ENVIRONMENTS = {
    "transformers": ("torch", "transformers"),
    "onnxruntime": ("onnxruntime", "tokenizers", "numpy"),
    "sentence_transformers": ("torch", "sentence-transformers", "transformers"),
}
COUNT = 64
MOST = 1e-4  # the largest difference


def main() -> None:
    """Prints a line for each library, then all as JSON; ends with 1 where vectors differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=ENVIRONMENTS)
    given = parser.parse_args()
    export = read_export(given.folder.resolve())
    asked = {"sentences": sentences(), "length": _length(export.path), "pooling": "mean"}
    inside = vectors_inside(export.path, asked)
    lacking = {"onnxruntime": not export.has_onnx, "sentence_transformers": not export.has_vectors}
    found = {}
    for library in [given.only] if given.only else ENVIRONMENTS:
        if lacking.get(library):
            print(f"{library:<24} left out: the export has no files for it")
            continue
        found[library] = compared(library, export.path, asked, inside)
        print(f"{library:<24} largest difference {found[library]['max_difference']:.1e}", flush=True)
    print(json.dumps({"sentences": COUNT, "libraries": found}))
    sys.exit(any(not each["max_difference"] <= MOST for each in found.values()))


def sentences() -> list[str]:
    """64 different ones, of several lengths, so that batches are padded."""
    numbered = (f"{text} {number}" for number in range(COUNT) for text in SENTENCES)
    return [next(numbered) for _ in range(COUNT)]


def _length(folder: Path) -> int:
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        return int(json.loads(settings.read_text(encoding="utf-8"))["max_seq_length"])
    return longest(folder, None)


def vectors_inside(folder: Path, asked: dict[str, Any]) -> NDArray[np.float32]:
    """(64, H) by the product's own functions: mean vectors, or logits of a classifier."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not (folder / "task.json").is_file():
        with torch.inference_mode():
            vectors = sentence_vectors(read_student(folder), tokenizer, asked["sentences"], asked["length"])
        return np.asarray(vectors.numpy())
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    encoded = tokenizer(asked["sentences"], truncation=True, max_length=asked["length"])["input_ids"]
    ids = [np.array(each, dtype=np.int64) for each in encoded]
    return logits_of(model, Tokens(ids, None, np.zeros(len(ids))))


def compared(
    library: str, folder: Path, asked: dict[str, Any], inside: NDArray[np.float32]
) -> dict[str, Any]:
    """How far a library's vectors are from ours, with what its environment holds."""
    with tempfile.TemporaryDirectory() as place:
        python = environment(Path(place) / "venv", ENVIRONMENTS[library])
        child = subprocess.run(
            [str(python), "-I", str(CLEAN / f"with_{library}.py"), str(folder)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=place,
            check=True,
        )
        listed = _run(python, "-m", "pip", "list", "--format=freeze").split()
    vectors = np.array(json.loads(child.stdout.splitlines()[-1])["vectors"])
    wanted = inside
    if (folder / "2_Normalize").is_dir() and library == "sentence_transformers":
        wanted = inside / np.linalg.norm(inside, axis=1, keepdims=True)
    return {"max_difference": float(np.abs(vectors - wanted).max()), "packages": listed}


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """A fresh virtual environment with some of the product's pins; its python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pins = [_pin(package) for package in packages]
    # torch by itself and first: what comes after must not choose another build of it
    for some in (pins[:1], pins[1:]):
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *some)
    return python


def _pin(package: str) -> str:
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==\S+$", pins, re.MULTILINE)
    assert found is not None, package
    return found[0]


def _run(python: Path, *arguments: str) -> str:
    return subprocess.run([str(python), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
