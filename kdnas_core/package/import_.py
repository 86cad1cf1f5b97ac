"""Imports an exported student as a finished run with one candidate and, if any, its student."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput, Failure
from kdnas_core.files import own_folder
from kdnas_core.models.families import BOTTLENECKS, FAMILIES, check_config, shape_of
from kdnas_core.package.manifest import Judged, Manifest, manifest_of
from kdnas_core.package.opened import (
    CONFIG,
    KEPT,
    MANIFEST,
    SUMS,
    TOKENIZER,
    WEIGHTS,
    Package,
    copied,
    opened_package,
    shown,
)
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import CandidateState
from kdnas_core.runs.store import Store, check_path, opened
from kdnas_core.spec import RunSpec, ScoreSpec
from kdnas_core.students.task_file import TASK_FILE, fingerprint_of_task

SUFFIX = " (imported)"
LONGEST_NAME = 100  # of a run

Tell = Callable[[str], None]

LOAD_TIMEOUT_S = 300
# config fields by which a library would download or run something
_NEVER = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "custom_pipelines",
)
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

# Loads the folder in the first argument with stock libraries, and prints what it found.
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


@dataclass(frozen=True)
class Imported:
    """An imported student.

    Attributes:
        run: id of the new run.
        candidate: id of its candidate.
        student: id of its student; None if the candidate itself was exported.
        path: the folder of the weights in the store.
        sha256: of its model.safetensors.
    """

    run: int
    candidate: int
    student: int | None
    path: Path
    sha256: str


def import_student(db: Path, source: Path | BinaryIO, title: str, tell: Tell) -> Imported:
    """Imports an exported student into a store, which is created if there is none.

    The store is not changed before the whole student is checked. A second import makes another run.

    Args:
        db: the store.
        source: the export: a folder, a zip, or an open zip.
        title: its name in messages.
        tell: called with each step, in words without a full stop.

        Raises:
            BadInput: it cannot be used, or the store cannot be written.
            Failure: the check timed out.
    """
    check_path(db)
    with opened_package(source, title) as package:
        manifest = manifest_of(package)
        try:
            with own_folder(db.parent, f".{db.name}.import-") as own:
                folder = own / "student"
                folder.mkdir()
                tell("Reading its files")
                sums = copied(package, folder)
                check_sums(package, sums)
                check_shape(folder, manifest.architecture, title)
                _keep_task(folder, manifest)
                tell("Loading it with stock transformers in a clean process")
                check_weights(folder, manifest, title)
                with opened(db) as store:
                    return _added(store, manifest, folder, sums[WEIGHTS])
        except OSError as error:
            raise BadInput(
                f"{title} cannot be kept beside {db} ({error.strerror}); free some space there, "
                "or name another store with --db."
            ) from None


def _added(store: Store, manifest: Manifest, folder: Path, sha256: str) -> Imported:
    """Adds the rows and moves the weights into the store's folder; both, or neither."""
    kept: list[Path] = []

    def place(run: int, candidate: int, student: int | None) -> None:
        where = store.files(run, candidate) if student is None else store.student_files(run, student)
        if where.exists():  # left by a store of the same name that was deleted by hand
            shutil.rmtree(where)
        where.parent.mkdir(parents=True, exist_ok=True)
        kept.append(folder.replace(where))

    run, candidate, student = store.import_run(
        _renamed(manifest.spec),
        manifest.teacher,
        manifest.architecture,
        _candidate(manifest.candidate, has_weights=manifest.student is None),
        _student(manifest),
        place,
    )
    try:
        _add_scores(store, manifest, candidate, student)
    except BaseException:
        store.delete_run(run)
        raise
    return Imported(run, candidate, student, kept[0].resolve(), sha256)


def _renamed(spec: RunSpec) -> RunSpec:
    name = spec.name.removesuffix(SUFFIX)[: LONGEST_NAME - len(SUFFIX)] + SUFFIX
    return spec.model_copy(update={"name": name})


def _candidate(judged: Judged, has_weights: bool) -> dict[str, Any]:
    return {
        **judged.model_dump(exclude={"latency", "rung"}),
        "step": judged.rung or 0,
        "latency": None if judged.latency is None else judged.latency.to_dict(),
        "state": _state(judged),
        "weights": int(has_weights),
    }


def _state(judged: Judged) -> CandidateState:
    """A candidate without a loss was vetoed if it was measured, else it failed; any can have a student."""
    if judged.rung is not None:
        return "pruned"
    if judged.loss is not None:
        return "done"
    return "failed" if judged.latency is None else "over_budget"


def _student(manifest: Manifest) -> dict[str, Any] | None:
    made = manifest.student
    if made is None:
        return None
    return {**made.model_dump(exclude={"spec"}), "spec": made.spec.model_dump_json()}


def _add_scores(store: Store, manifest: Manifest, candidate: int, student: int | None) -> None:
    scores = manifest.scores
    if not scores:
        return
    how = ScoreSpec(
        tasks=list(dict.fromkeys(score.task for score in scores)),
        seeds=1 + max(score.seed for score in scores),
        control=any(score.subject == "control" for score in scores),
    )
    whose = {"candidate": candidate} if student is None else {"student": student}
    job = Job("scorings", store.create_scoring(how, **whose, worker=Worker.this_process()))
    try:
        store.add_scores(job.id, scores)
    except BaseException:
        store.end(job, "failed")  # else the run could not be deleted
        raise
    store.end(job, "finished")


def check_sums(package: Package, sums: dict[str, str]) -> None:
    """Compares the copied files with the checksums of the export.

    Args:
        package: the export.
        sums: SHA-256 of each copied file, by name.

    Raises:
        BadInput: a file is missing, or differs from the exported one.
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
    """Checks that the config is that of a student of this architecture; loads nothing.

    Raises:
        BadInput: it is not; says why.
    """
    fields = _fields(folder / CONFIG, title)
    tokenizer = folder / "tokenizer_config.json"
    for name in (*_fields(tokenizer, title), *fields) if tokenizer.exists() else fields:
        if name in _NEVER:
            raise BadInput(f"The config in {title} has {name}, which no student has; do not trust it.")
    family = fields.get("model_type")
    try:  # a student with bottlenecks is a MobileBERT, a family without teachers
        check_config({**fields, "model_type": "bert" if family == "mobilebert" else family}, title)
        found = _shape(fields, title)
    except (BadInput, KeyError, TypeError):
        families = ", ".join((*FAMILIES, BOTTLENECKS))
        raise BadInput(
            f"The config in {title}, of the family {shown(str(family))}, is that of no student; "
            f"import an encoder that was exported here, one of {families}."
        ) from None
    if found != _as_configs_say(architecture, found):
        raise BadInput(
            f"The config in {title} is that of another architecture than its {MANIFEST} says; "
            "export the student anew."
        )


def _keep_task(folder: Path, manifest: Manifest) -> None:
    """Removes the task file unless it is valid and the student is task-specific."""
    is_for_a_task = manifest.student is not None and manifest.student.spec.task is not None
    if not is_for_a_task or fingerprint_of_task(folder) is None:
        (folder / TASK_FILE).unlink(missing_ok=True)


def check_weights(folder: Path, manifest: Manifest, title: str) -> None:
    """Loads the student with stock `transformers` in a clean process, without a network.

    Raises:
        BadInput: it does not load, or is not the model that was exported.
        Failure: loading timed out.
    """
    found = _loaded(folder, title)
    if found["strays"]:
        named = ", ".join(map(shown, found["strays"]))
        raise BadInput(f"The weights in {title} do not fit its config, see {named}; export the student anew.")
    if not found["finite"]:
        raise BadInput(f"The student in {title} computes no numbers; export it anew.")
    classifies = manifest.student is not None and manifest.student.spec.task is not None
    counted = manifest.candidate.parameters
    # a classification head adds parameters, and those of a candidate that failed early are unknown
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
    """The architecture with its embedding size as its config has it.

    Without an embedding size, an ELECTRA student has its teacher's; one equal to the hidden size is dropped.
    """
    if architecture.embedding_size is None:
        return replace(architecture, embedding_size=found.embedding_size)
    same = architecture.embedding_size == architecture.hidden_size and found.embedding_size is None
    return replace(architecture, embedding_size=None) if same else architecture
