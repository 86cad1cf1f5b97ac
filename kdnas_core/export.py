"""Export of a candidate as a folder that stock `transformers` loads, verified by loading it.

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
from kdnas_core.runs.rows import Candidate
from kdnas_core.runs.store import Store

LOAD_TIMEOUT_S = 300

# Loads the folder in the first argument as anybody would, and prints what it found.
_LOAD = """
import json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
tokens = AutoTokenizer.from_pretrained(folder)(["A student reads a sentence."], return_tensors="pt")
with torch.inference_mode():
    states = model.eval()(**tokens).last_hidden_state
print(json.dumps({
    "parameters": sum(parameter.numel() for parameter in model.parameters()),
    "finite": bool(torch.isfinite(states).all()),
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


def export_hf(store: Store, candidate: int, folder: Path) -> Exported:
    """Writes a candidate's config, mini-KD weights and tokenizer to a new folder.

    Nothing is left at `folder` unless all of it was written and verified.

    Args:
        store: that holds the candidate.
        candidate: its id.
        folder: must not exist yet, or be empty.

    Raises:
        BadInput: the candidate has no weights, or the folder cannot be written.
        Failure: stock `transformers` did not load what was written.
    """
    row = store.candidate(candidate)
    source = store.files(row.run, row.id)
    if not row.weights:
        raise BadInput(f"Candidate {candidate} has no weights to export: {_why_none(row)}.")
    if not (source / "model.safetensors").is_file():
        raise BadInput(f"The weights of candidate {candidate} are gone from {source}; search again.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already; name a folder that does not.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as unfinished:
            copied = Path(shutil.copytree(source, Path(unfinished) / "student"))
            _verify(copied, row)
            copied.replace(folder)
    except shutil.Error:
        raise Failure(f"The files of candidate {candidate} could not be read whole; try again.") from None
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


def _why_none(candidate: Candidate) -> str:
    if candidate.state == "done":
        return "only students on the frontier keep theirs in this run (search.keep_weights)"
    return f"it is {candidate.state.replace('_', ' ')} and was not distilled to the end"


def _verify(folder: Path, candidate: Candidate) -> None:
    child = subprocess.run(
        [sys.executable, "-I", "-c", _LOAD, str(folder)],
        capture_output=True,
        text=True,
        timeout=LOAD_TIMEOUT_S,
        check=False,
    )
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failure(f"Stock transformers did not load the export of candidate {candidate.id}: {reason}")
    found = json.loads(child.stdout.splitlines()[-1])
    expected: dict[str, object] = {
        "parameters": candidate.parameters,
        "finite": True,
        "width": candidate.architecture.hidden_size,
        "layers": candidate.architecture.layers,
        "strays": [[], [], []],
    }
    if found != expected:
        raise RuntimeError(
            f"the export loads as {found}, which is not the student that was judged: {expected}"
        )
