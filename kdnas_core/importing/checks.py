"""Whether the files of an import are the student that they are said to be."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.families import FAMILIES, check_config, shape_of
from kdnas_core.errors import BadInput, Failure
from kdnas_core.importing.manifest import Manifest
from kdnas_core.importing.package import CONFIG, KEPT, MANIFEST, SUMS, TOKENIZER, WEIGHTS, Package, shown

LOAD_TIMEOUT_S = 300
# fields by which a config would have a library fetch or run something
_NEVER = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "custom_pipelines",
)
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

# Loads the folder in the first argument as anybody would, and prints what it found.
_LOAD = """
import json, sys
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

folder = sys.argv[1]
with safe_open(f"{folder}/model.safetensors", framework="pt") as file:
    tensors = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
kind = AutoModelForSequenceClassification if classifies else AutoModel
with torch.device("meta"):
    shapes = {name: list(value.shape) for name, value in kind.from_config(config).state_dict().items()}
strays = sorted(name for name in {*shapes, *tensors} if shapes.get(name) != tensors.get(name))
found = {"classifies": classifies, "strays": strays[:3]}
if not strays:
    model = kind.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokens = tokenizer(["A student reads a sentence."], return_tensors="pt")
    with torch.inference_mode():
        found["finite"] = bool(torch.isfinite(model(**tokens)[0]).all())
    found["parameters"] = sum(parameter.numel() for parameter in model.parameters())
print(json.dumps(found))
"""


def check_sums(package: Package, sums: dict[str, str]) -> None:
    """Compares what was copied with the checksums of the export.

    Args:
        package: the export.
        sums: SHA-256 of each file that was copied, by name.

    Raises:
        BadInput: a file is not the one that was exported, or is not there.
    """
    lines = package.read(SUMS).decode("utf-8", errors="replace").splitlines()
    parts = [_LINE.fullmatch(line) for line in lines if line.strip()]
    listed = {part[2].removeprefix("./"): part[1] for part in parts if part is not None}
    needed = {CONFIG, WEIGHTS} | (KEPT & set(listed))
    sums = {**sums, MANIFEST: hashlib.sha256(package.read(MANIFEST)).hexdigest()}
    for name in sorted(needed | set(sums)):
        if name not in sums:
            raise BadInput(f"{package.title} has no {name}; import a whole export.")
        if listed.get(name) != sums[name]:
            raise BadInput(
                f"The file {name} in {package.title} is not the one that was exported; get it anew."
            )
    if not TOKENIZER & set(sums):
        raise BadInput(f"{package.title} has no tokenizer; import a whole export.")


def check_shape(folder: Path, architecture: Architecture, title: str) -> None:
    """Refuses a config that is of no student, or of one of another architecture; loads nothing.

    Raises:
        BadInput: says why.
    """
    fields = _fields(folder / CONFIG, title)
    tokenizer = folder / "tokenizer_config.json"
    for name in (*_fields(tokenizer, title), *fields) if tokenizer.exists() else fields:
        if name in _NEVER:
            raise BadInput(f"The config in {title} has {name}, which no student has; do not trust it.")
    family = fields.get("model_type")
    try:  # a student with bottlenecks is a MobileBERT, which no teacher is
        check_config({**fields, "model_type": "bert" if family == "mobilebert" else family}, title)
        found = _shape(fields, title)
    except (BadInput, KeyError, TypeError):
        families = ", ".join((*FAMILIES, "mobilebert"))
        raise BadInput(
            f"The config in {title}, of the family {shown(str(family))}, is that of no student; "
            f"import an encoder that was exported here, one of {families}."
        ) from None
    if found != _as_configs_say(architecture, found):
        raise BadInput(
            f"The config in {title} is that of another architecture than its {MANIFEST} says; "
            "export the student anew."
        )


def check_weights(folder: Path, manifest: Manifest, title: str) -> None:
    """Loads the student with stock `transformers` in a clean process, without a network.

    Raises:
        BadInput: it does not load, or is not the model that was exported.
        Failure: it did not come to an end.
    """
    found = _loaded(folder, title)
    if found["strays"]:
        named = ", ".join(map(shown, found["strays"]))
        raise BadInput(f"The weights in {title} do not fit its config, see {named}; export the student anew.")
    if not found["finite"]:
        raise BadInput(f"The student in {title} computes no numbers; export it anew.")
    classifies = manifest.student is not None and manifest.student.spec.task is not None
    counted = manifest.candidate.parameters
    # a head has parameters of its own, and a candidate that failed early was never counted
    if found["classifies"] != classifies or (
        not classifies and counted is not None and counted != found["parameters"]
    ):
        raise BadInput(
            f"The weights in {title} are not those of the model in its {MANIFEST}; export it anew."
        )


def _loaded(folder: Path, title: str) -> dict[str, Any]:
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD, str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOAD_TIMEOUT_S,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"Loading the student in {title} took longer than {LOAD_TIMEOUT_S} s; try again."
        ) from None
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["it ended early"])[-1].rstrip(".")
        raise BadInput(f"Stock transformers does not load the student in {title} ({reason}); export it anew.")
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def _fields(path: Path, title: str) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise BadInput(f"The file {path.name} in {title} is not JSON; export the student anew.")
    return fields


def _shape(config: dict[str, Any], title: str) -> Architecture:
    if config["model_type"] != "mobilebert":
        return shape_of(config, title)
    plain = shape_of({**config, "num_attention_heads": 1}, title)
    return replace(
        plain,
        attention_heads=config["num_attention_heads"],
        embedding_size=config["embedding_size"],
        bottleneck_size=config["intra_bottleneck_size"],
        feed_forward_networks=config["num_feedforward_networks"],
        bottleneck_attention=config["use_bottleneck_attention"],
    )


def _as_configs_say(architecture: Architecture, found: Architecture) -> Architecture:
    """The architecture with its embedding size as a config has it.

    A student of an ELECTRA keeps its teacher's where it is given none; one as wide as the student is none.
    """
    if architecture.embedding_size is None:
        return replace(architecture, embedding_size=found.embedding_size)
    same = architecture.embedding_size == architecture.hidden_size and found.embedding_size is None
    return replace(architecture, embedding_size=None) if same else architecture
