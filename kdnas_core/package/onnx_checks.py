"""Checks a student in ONNX: its difference from torch, its scores with 8-bit weights, and its latency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.data.packaged_task import packaged_task
from kdnas_core.data.tasks import PACKAGED, Task, read_task
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.classifier import logits_of, predictions, tokens_of
from kdnas_core.evaluation.metrics import task_score
from kdnas_core.evaluation.zero_shot import probe_accuracy
from kdnas_core.files import cache_folder
from kdnas_core.latency.protocol import TimedRun, reading, time_in_turns
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import runner, session_from, session_runner, threads
from kdnas_core.models.teacher import Teacher
from kdnas_core.package.checking import SENTENCES
from kdnas_core.spec import LatencySpec

BATCHES = (1, 3, 12)  # sentences in each batch

ROWS = 2_000  # the most rows of a split
LENGTH = 128  # the most tokens of a task's row
PROBED, PROBE_LENGTH = 1_000, 64  # paragraphs that a probe is fitted on, and the most tokens of each

FP32, INT8 = "model.onnx", "model_int8.onnx"


class OnnxModel:
    """An ONNX model with the interface of a `transformers` model, so that it can be scored in the same way.

    Attributes:
        config: of the exported model.
    """

    def __init__(self, path: Path, config: PreTrainedConfig) -> None:
        self.config = config
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._inputs = [put.name for put in self._session.get_inputs()]

    def eval(self) -> OnnxModel:
        """Returns itself; it has no training mode."""
        return self

    def __call__(self, **given: torch.Tensor) -> SimpleNamespace:
        """Runs the model, and returns its one output under both names of a stock model's outputs."""
        zeros = torch.zeros_like(given["input_ids"])  # missing token types are 0
        feed = {name: given.get(name, zeros).numpy() for name in self._inputs}
        values = torch.from_numpy(self._session.run(None, feed)[0])
        return SimpleNamespace(last_hidden_state=values, logits=values)


def padded_batches(
    tokenizer: PreTrainedTokenizerBase, length: int, names: tuple[str, ...]
) -> list[dict[str, torch.Tensor]]:
    """Tokenizes the sample sentences in padded batches of several sizes.

    Args:
        tokenizer: of the model.
        length: the most tokens of a sentence.
        names: of the model's inputs.
    """
    batches, start = [], 0
    for size in BATCHES:
        batch = list(SENTENCES[start : start + size])
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=length, return_tensors="pt")
        zeros = torch.zeros_like(tokens["input_ids"])
        batches.append({name: tokens.get(name, zeros) for name in names})
        start += size
    return batches


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Returns the largest absolute difference of two arrays; infinity if a value is not finite."""
    difference = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


@dataclass(frozen=True)
class Scores:
    """The scores of both files on one task, usually 0 to 1."""

    task: str
    fp32: float
    int8: float

    @property
    def retained(self) -> float | None:
        """The share of the score that 8-bit weights keep; None if the score is not positive."""
        return self.int8 / self.fp32 if self.fp32 > 0 else None


def scores_of(
    files: tuple[Path, Path],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    task: str | None,
    length: int,
) -> Scores:
    """Scores both ONNX files of a student in the same way.

    A classifier is scored on its own task. An encoder is scored on the packaged task, by a linear classifier
    that is fitted to the mean vectors of each file.

    Args:
        files: in float32, and with 8-bit weights.
        config: of the student.
        tokenizer: of the student.
        task: the classifier's task; None for an encoder.
        length: the student's maximum length in tokens.

    Raises:
        BadInput: the task cannot be read here.
    """
    fp32, int8 = (cast(PreTrainedModel, OnnxModel(path, config)) for path in files)
    if task is None:
        train, judged = _packaged_rows()
        probes = [
            probe_accuracy(model, tokenizer, train, judged, min(length, PROBE_LENGTH))
            for model in (fp32, int8)
        ]
        return Scores(f"{PACKAGED} (linear probe)", *probes)
    found = _short(read_task(task, cache_folder()))
    return Scores(
        found.name, *(_score(model, found, tokenizer, min(length, LENGTH)) for model in (fp32, int8))
    )


def _packaged_rows() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The rows to fit the probe on, and those to score it on: many, since the differences are small."""
    splits = packaged_task(cache_folder())
    rows = {split: [(each.sentence, each.label) for each in some] for split, some in splits.items()}
    train, judged = rows["train"][:PROBED], [*rows["validation"], *rows["test"]][:ROWS]
    if len({label for _, label in train}) < 2 or not judged:
        raise BadInput("The packaged task has too few paragraphs on this machine to compare by.")
    return train, judged


def _short(task: Task) -> Task:
    return replace(task, splits={name: rows[:ROWS] for name, rows in task.splits.items()})


def _score(model: PreTrainedModel, task: Task, tokenizer: PreTrainedTokenizerBase, length: int) -> float:
    predicted = {
        split: predictions(logits_of(model, tokens_of(task.splits[split], tokenizer, length)), task)
        for split in task.scored
    }
    return task_score(task, predicted)


def onnx_file(runtime: str) -> str:
    """Returns the name of the file that an ONNX Runtime runtime uses."""
    return INT8 if runtime.endswith("int8") else FP32


def timed_again(
    student: PreTrainedModel,
    onnx: Path | None,
    teacher: Teacher,
    protocol: LatencySpec,
) -> LatencyReading:
    """Measures a student's latency beside its teacher's, without the cache; the caller holds the device.

    Args:
        student: loaded from the export.
        onnx: the folder of its exported ONNX files; None if there are none.
        teacher: timed in turns with the student.
        protocol: has the runtime.

    Raises:
        BadInput: this machine lacks the runtime.
    """
    runners = [runner(teacher.model, protocol), _student(student, onnx, protocol)]
    known = _read(runners, protocol)
    return known if known.clean else _read(runners, protocol)  # a bench repeats an unclean reading once too


def _read(runners: list[TimedRun], protocol: LatencySpec) -> LatencyReading:
    with threads(protocol):
        timings = time_in_turns(runners, protocol.warmup, protocol.runs)
    return reading(timings[-1], timings[0], protocol)


def _student(student: PreTrainedModel, onnx: Path | None, protocol: LatencySpec) -> TimedRun:
    """Returns a runner of the exported file, if there is one for the runtime, else of the model."""
    if onnx is None or not protocol.runtime.startswith("onnxruntime"):
        return runner(student, protocol)
    return session_runner(session_from(onnx / onnx_file(protocol.runtime), protocol), student, protocol)
