"""Export of a candidate or a student as a folder that stock `transformers` loads, verified by loading it.

The verification runs in a clean process that imports nothing of this project.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.sources import Source, source_named, weights_of
from kdnas_core.runs.store import Store

LOAD_TIMEOUT_S = 300

# Loads the folder in the first argument as anybody would, and prints what it found.
_LOAD = """
import json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
kind = AutoModelForSequenceClassification if classifies else AutoModel
model, report = kind.from_pretrained(folder, output_loading_info=True)
tokens = AutoTokenizer.from_pretrained(folder)(["A student reads a sentence."], return_tensors="pt")
with torch.inference_mode():
    outputs = model.eval()(**tokens, output_hidden_states=True)
states = outputs.hidden_states[-1]
print(json.dumps({
    "classifies": classifies,
    "parameters": sum(parameter.numel() for parameter in model.parameters()),
    "finite": bool(torch.isfinite(outputs[0]).all() and torch.isfinite(states).all()),
    "width": states.shape[-1],
    "layers": config.num_hidden_layers,
    "strays": [list(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")],
}))
"""


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    Attributes:
        path: the folder.
        files: names of its files.
        sha256: of its model.safetensors.
        verified: stock `transformers` loaded it in a clean process and found the model that was judged.
    """

    path: Path
    files: list[str]
    sha256: str
    verified: bool


def export_hf(store: Store, name: int | str, folder: Path) -> Exported:
    """Writes a candidate's or a student's config, weights and tokenizer to a new folder.

    Nothing is left at `folder` unless all of it was written and verified.

    Args:
        store: that holds it.
        name: of the candidate, as in 12, or of the student, as in s3.
        folder: must not exist yet, or be empty.

    Raises:
        BadInput: there is none such, it has no weights, or the folder cannot be written.
        Failure: stock `transformers` did not load what was written.
    """
    source = source_named(store, str(name))
    weights = weights_of(store, source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already; name a folder that does not.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as unfinished:
            copied = Path(shutil.copytree(weights, Path(unfinished) / "student"))
            _verify(copied, source)
            copied.replace(folder)
    except shutil.Error:
        raise Failure(f"The files of {source.title.lower()} could not be read whole; try again.") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"Loading the export took longer than {LOAD_TIMEOUT_S} s; try again.") from None
    except OSError as error:
        raise BadInput(f"{folder} cannot be written ({error.strerror}); name another folder.") from None
    files = sorted(path.name for path in folder.iterdir())
    return Exported(folder, files, sha256(folder / "model.safetensors"), verified=True)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path, source: Source) -> None:
    child = subprocess.run(
        [sys.executable, "-I", "-c", _LOAD, str(folder)],
        capture_output=True,
        text=True,
        timeout=LOAD_TIMEOUT_S,
        check=False,
    )
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failure(f"Stock transformers did not load the export of {source.title.lower()}: {reason}")
    found = json.loads(child.stdout.splitlines()[-1])
    expected = _expected(source)
    if {name: found[name] for name in expected} != expected:
        raise RuntimeError(
            f"the export loads as {found}, which is not the student that was judged: {expected}"
        )


def _expected(source: Source) -> dict[str, object]:
    """What stock transformers has to find."""
    candidate, student = source.candidate, source.student
    classifies = student is not None and student.spec.task is not None
    expected: dict[str, object] = {
        "classifies": classifies,
        "finite": True,
        "width": candidate.architecture.hidden_size,
        "layers": candidate.architecture.layers,
        "strays": [[], [], []],
    }
    # a head has parameters of its own, and a candidate that failed early was never counted
    counted = candidate.parameters is not None and not classifies
    return {**expected, "parameters": candidate.parameters} if counted else expected
