"""Checks an export before it is offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdnas_core.errors import Failure
from kdnas_core.hardware import exclusive
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.families import first_position
from kdnas_core.models.pooling import POOLING_NAMES, Pooling, pooling_of
from kdnas_core.package.checks import MOST_DIFFERENCE, Checks, OnnxCheck
from kdnas_core.package.children import Say, in_clean_process, in_own_process
from kdnas_core.package.facts import Facts
from kdnas_core.package.target import full
from kdnas_core.spec import USUAL_RUNTIMES, Runtime

_CLEAN = Path(__file__).parent / "clean"
LONGEST = 512  # tokens

_LONG = (
    "When the budget is moved, the pick is computed again from what was measured, and nothing is run anew; "
    "what was measured once on a machine, under a protocol that is written beside it, is remembered there. "
)
SENTENCES: tuple[str, ...] = (
    "Yes.",
    "A student reads a sentence.",
    "How fast is it, and on which machine was that measured?",
    "The teacher has six layers; its student has three, half as wide, and is eight times as fast.",
    "prices rose by 3.5 % in 2024, to $1,250.00 (see table 7)",
    "Latency is what a user waits for: not the sum of what a profiler saw.",
    "Ein kurzer Satz mit Umlauten: schöne Grüße aus Köln.",
    "知识蒸馏让小模型学习大模型。",
    "مرحبا بالعالم",
    "C'est en forgeant qu'on devient forgeron 🔨🙂",
    "def forward(self, x): return self.dense(x)",
    "the the the the the the the the the the the the",
    _LONG,
    _LONG * 3,
    "unbelievablylongwordthatnobodyhaseverwritten" * 3,
    "Last, a sentence that ends the batch.",
)

_MODULE = "sentence_transformers.models."  # all versions load modules of this name


def checked(folder: Path, facts: Facts, onnx: bool, say: Say) -> Checks:
    """Adds the derived files to an export, and checks all of it.

    Args:
        folder: has the config, weights and tokenizer.
        facts: of the student.
        onnx: whether to write ONNX files.
        say: called with the activity several times a second; may raise.

    Raises:
        BadInput: the disk is full.
        Failure: the export is not the student that was judged, or does not load.
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
    """Returns the student's maximum length in tokens, with special tokens; at most that of the pooling."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    unused = first_position(config["model_type"], config.get("pad_token_id") or 0)
    limits = [LONGEST, config["max_position_embeddings"] - unused, tokenizer.get("model_max_length")]
    if pooling is not None:
        limits.append(pooling.length)
    return int(min(limit for limit in limits if limit is not None))


def _clean(library: str, folder: Path, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    with exclusive(lambda: say("waiting until nothing else is measured on this machine")):
        script = _CLEAN / f"with_{library}.py"
        return in_clean_process(script, folder, asked, say, needs_torch=library != "onnxruntime")


def _compare_with(facts: Facts, found: dict[str, Any]) -> None:
    """Raises `Failure` unless the export is the student that was judged, and has no other tensors."""
    counted = facts.candidate.parameters  # None if the candidate failed early
    expected = {
        "classifies": facts.task is not None,
        "finite": True,
        "width": facts.candidate.architecture.hidden_size,
        "layers": facts.candidate.architecture.layers,
        "strays": [[], [], []],
        "stored": found["parameters"],  # projections or parts of a teacher would add to it
    }
    if counted is not None and facts.task is None:
        expected["parameters"] = counted
    wrong = [name for name, value in expected.items() if found[name] != value]
    # a classifier may lack the encoder's pooler, but its encoder has no other parameters
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
        "kdnas_core.package.work", {**asked, "teacher": spec.teacher, "protocols": protocols}, say
    )
    if "full" in made:
        raise full(folder.parent)
    if "refused" in made:
        raise Failure(made["refused"])
    return made


def _difference(library: str, folder: Path, asked: dict[str, Any], wanted: Any, say: Say) -> float:
    """The largest difference of the vectors of a library alone from those of stock `transformers`."""
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


def write_modules(folder: Path, pooling: Pooling, width: int, length: int) -> None:
    """Writes the files by which sentence-transformers loads an export.

    Args:
        folder: of the export.
        pooling: the teacher's.
        width: of the student's hidden states.
        length: maximum length in tokens.
    """
    kinds = {
        "Transformer": "",
        "Pooling": "1_Pooling",
        **({"Normalize": "2_Normalize"} if pooling.normalised else {}),
    }
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_MODULE}{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    modes = {name: mode == pooling.mode for name, mode in POOLING_NAMES.items()}
    for path in filter(None, kinds.values()):
        (folder / path).mkdir()
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if pooling.normalised:  # it has no settings, but many tools drop an empty folder
        _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
