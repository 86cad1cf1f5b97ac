"""All that an export has to pass before it is offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdnas_core.distillation.families import first_position
from kdnas_core.distillation.sentence_encoders import Pooling, pooling_of
from kdnas_core.errors import Failure
from kdnas_core.export.checks import MOST_DIFFERENCE, Checks, OnnxCheck
from kdnas_core.export.children import Say, in_clean_process, in_own_process
from kdnas_core.export.facts import Facts
from kdnas_core.export.samples import SENTENCES
from kdnas_core.export.target import full
from kdnas_core.export.vectors import write_modules
from kdnas_core.measure.device import device
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.spec import USUAL_RUNTIMES, Runtime

_CLEAN = Path(__file__).parent / "clean"
LONGEST = 512  # tokens


def checked(folder: Path, facts: Facts, onnx: bool, say: Say) -> Checks:
    """Completes an export with what is made of its weights, and checks all of it.

    Args:
        folder: with its config, weights and tokenizer.
        facts: of the student.
        onnx: whether ONNX files are to be written.
        say: told what is being done several times a second; may raise.

    Raises:
        BadInput: the disk is full.
        Failure: what was written is not the student that was judged, or does not load.
    """
    pooling = None if facts.task is not None else pooling_of(facts.run.spec.teacher)
    length = longest(folder, pooling if isinstance(pooling, Pooling) else None)
    mode = pooling.mode if isinstance(pooling, Pooling) else "mean"
    asked = {"sentences": list(SENTENCES), "length": length, "pooling": mode}
    stock = _clean("transformers", folder, asked, say)
    _compare_with(facts, stock)
    made = _made(folder, facts, onnx, length, say)
    vectors = np.array(stock["vectors"])
    alone = _difference("onnxruntime", folder, asked, vectors, say) if onnx else None
    sentences = None
    if isinstance(pooling, Pooling):
        write_modules(folder, pooling, facts.candidate.architecture.hidden_size, length)
        wanted = _normalised(vectors) if pooling.normalised else vectors
        sentences = _difference("sentence_transformers", folder, asked, wanted, say)
    return Checks(
        parameters=stock["parameters"],
        versions=made["versions"],
        onnx=made["onnx"] and OnnxCheck(**made["onnx"]),
        onnxruntime_alone=alone,
        sentence_transformers=sentences,
        latencies={runtime: LatencyReading.from_dict(each) for runtime, each in made["latencies"].items()},
        notes=(*made["notes"], *([pooling] if isinstance(pooling, str) else [])),
    )


def longest(folder: Path, pooling: Pooling | None) -> int:
    """How many tokens the student reads, special tokens included; as many as its teacher makes vectors of."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    unused = first_position(config["model_type"], config.get("pad_token_id") or 0)
    limits = [LONGEST, config["max_position_embeddings"] - unused, tokenizer.get("model_max_length")]
    if pooling is not None:
        limits.append(pooling.length)
    return int(min(limit for limit in limits if limit is not None))


def _clean(library: str, folder: Path, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    with device(lambda: say("waiting until nothing else is measured on this machine")):
        return in_clean_process(_CLEAN / f"with_{library}.py", folder, asked, say)


def _compare_with(facts: Facts, found: dict[str, Any]) -> None:
    """Refuses what is not the student that was judged: another one, or one with more in it than itself."""
    counted = facts.candidate.parameters  # None for one that failed early
    expected = {
        "classifies": facts.task is not None,
        "finite": True,
        "width": facts.candidate.architecture.hidden_size,
        "layers": facts.candidate.architecture.layers,
        "strays": [[], [], []],
        "stored": found["parameters"],  # projections or parts of a teacher would be more
    }
    if counted is not None and facts.task is None:
        expected["parameters"] = counted
    wrong = [name for name, value in expected.items() if found[name] != value]
    # a head leaves out the pooler where it has none, and adds nothing to the encoder
    if counted is not None and found["encoder_parameters"] > counted:
        wrong.append("encoder_parameters")
    if wrong:
        first = wrong[0]
        raise Failure(
            f"What was exported is not the student that was judged: {first.replace('_', ' ')} is "
            f"{found[first]} and not {expected.get(first, counted)}; export it again."
        )


def _made(folder: Path, facts: Facts, onnx: bool, length: int, say: Say) -> dict[str, Any]:
    spec = facts.run.spec
    own: Runtime = spec.latency.runtime
    runtimes = dict.fromkeys((*USUAL_RUNTIMES, own)) if onnx else [own]
    protocols = [{**spec.latency.model_dump(), "runtime": each} for each in runtimes]
    asked = {"folder": str(folder), "onnx": onnx, "task": facts.task, "length": length}
    made = in_own_process(
        "kdnas_core.export.work", {**asked, "teacher": spec.teacher, "protocols": protocols}, say
    )
    if "full" in made:
        raise full(folder.parent)
    if "refused" in made:
        raise Failure(made["refused"])
    return made


def _difference(library: str, folder: Path, asked: dict[str, Any], wanted: Any, say: Say) -> float:
    """How far the vectors of a library alone are from those of stock `transformers`."""
    found = np.array(_clean(library, folder, asked, say)["vectors"])
    difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if not difference <= MOST_DIFFERENCE * max(1.0, float(np.sqrt(np.square(wanted).mean()))):
        words = library.replace("_", "-")
        raise Failure(
            f"With {words} alone the export gives other vectors, by up to {difference:.2g}; report this."
        )
    return difference


def _normalised(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
