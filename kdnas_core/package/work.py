"""The steps of an export that need torch, in a process of their own: ONNX files, their checks, and latency.

Reads its input from stdin as JSON, reports its activity on stdout, and prints its result as JSON.
"""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kdnas_core.errors import BadInput
from kdnas_core.hardware import exclusive
from kdnas_core.latency.onnx import input_names, output_name, quantise, write_onnx
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.package.checks import MOST_DIFFERENCE, OnnxCheck
from kdnas_core.package.children import TELLING
from kdnas_core.package.onnx_checks import (
    FP32,
    INT8,
    OnnxModel,
    largest_difference,
    padded_batches,
    scores_of,
    timed_again,
)
from kdnas_core.spec import LatencySpec

_LIBRARIES = ("torch", "transformers", "tokenizers", "onnxruntime", "sentence-transformers")


def main() -> None:
    """Prints the result; or `refused` with a sentence, or `full` if the disk is full."""
    asked = json.load(sys.stdin)
    try:
        print(json.dumps(found(asked)))
    except BadInput as error:
        print(json.dumps({"refused": str(error)}))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(json.dumps({"full": True}))


def found(asked: dict[str, Any]) -> dict[str, Any]:
    """Writes and checks the ONNX files, and measures the latencies.

    Args:
        asked: the export's `folder`; `onnx`, whether to write ONNX files; a classifier's `task`, or None;
            the `length` in tokens; the `teacher`; the `protocols` of the latencies.

    Raises:
        BadInput: the ONNX file differs from the student.
    """
    folder, notes = Path(asked["folder"]), list[str]()
    model = _student(folder, asked["task"])
    onnx = None
    if asked["onnx"]:
        with exclusive(_waiting):
            onnx = asdict(_onnx(model, folder, asked, notes))
    latencies = _latencies(model, folder / "onnx" if asked["onnx"] else None, asked, notes)
    versions = {name: version(name) for name in _LIBRARIES}
    return {"onnx": onnx, "latencies": latencies, "notes": notes, "versions": versions}


def _tell(activity: str) -> None:
    print(f"{TELLING}{activity}", flush=True)


def _waiting() -> None:
    _tell("waiting until nothing else is measured on this machine")


def _student(folder: Path, task: str | None) -> PreTrainedModel:
    kind: Any = AutoModel if task is None else AutoModelForSequenceClassification
    model: PreTrainedModel = kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    return model.eval()


def _onnx(model: PreTrainedModel, folder: Path, asked: dict[str, Any], notes: list[str]) -> OnnxCheck:
    """Writes both files and compares them with torch and with each other."""
    files = folder / "onnx" / FP32, folder / "onnx" / INT8
    files[0].parent.mkdir()
    _tell("writing the ONNX file")
    write_onnx(model, files[0])
    _tell("writing the ONNX file with 8-bit weights")
    quantise(*files)
    _tell("comparing the ONNX files with torch")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    batches = padded_batches(tokenizer, asked["length"], input_names(model))
    fp32, int8 = (_difference(model, OnnxModel(path, model.config), batches) for path in files)
    if not fp32 <= MOST_DIFFERENCE * _scale(model, batches):
        raise BadInput(f"The ONNX file differs from torch by up to {fp32:.2g}; report this.")
    _tell("comparing float32 and 8-bit weights on a task")
    try:
        scores = scores_of(files, model.config, tokenizer, asked["task"], asked["length"])
    except BadInput as error:
        notes.append(f"What 8-bit weights lose on a task is not known: {error}")
        return OnnxCheck(fp32, int8)
    return OnnxCheck(fp32, int8, scores.task, scores.fp32, scores.int8, scores.retained)


@torch.inference_mode()
def _torchs(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> Any:
    return model(**batch)[output_name(model)].numpy()


def _difference(model: PreTrainedModel, onnx: OnnxModel, batches: list[dict[str, torch.Tensor]]) -> float:
    return max(largest_difference(_torchs(model, batch), onnx(**batch).logits.numpy()) for batch in batches)


def _scale(model: PreTrainedModel, batches: list[dict[str, torch.Tensor]]) -> float:
    """The scale of the outputs, at least 1; MobileBERT has no layer norm, so its can be in the thousands."""
    return max(1.0, *(float(np.sqrt(np.square(_torchs(model, batch)).mean())) for batch in batches))


def _latencies(
    model: PreTrainedModel, onnx: Path | None, asked: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    readings: dict[str, Any] = {}
    try:
        teacher: Teacher = load_teacher(asked["teacher"])
        for fields in asked["protocols"]:
            protocol = LatencySpec(**fields)
            with exclusive(_waiting):
                _tell(f"measuring the latency again: {protocol.runtime}")
                readings[protocol.runtime] = timed_again(model, onnx, teacher, protocol).to_dict()
    except BadInput as error:
        notes.append(f"Its latency was not measured again: {error}")
    return readings


if __name__ == "__main__":
    main()
