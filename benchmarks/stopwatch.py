"""An independent stopwatch: times exported folders with stock libraries, and imports nothing of this project.

`python benchmarks/stopwatch.py RUNTIME STUDENT TEACHER [THREADS BATCH LENGTH]` prints one JSON object with
the median milliseconds of each folder, their runs taking turns. `benchmarks/latency.py` holds it against
ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

WARMUP, RUNS = 20, 100


def main(
    runtime: str, student: str, teacher: str, threads: int = 1, batch: int = 1, length: int = 128
) -> None:
    """Prints the medians of both."""
    load = onnx if runtime.startswith("onnxruntime") else eager
    file = "model_int8.onnx" if runtime.endswith("int8") else "model.onnx"
    runs = [load(Path(folder), file, threads, (batch, length)) for folder in (student, teacher)]
    for _ in range(WARMUP):
        for run in runs:
            run()
    samples: list[list[float]] = [[], []]
    for _ in range(RUNS):
        for run, taken in zip(runs, samples, strict=True):
            began = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - began))
    medians = [statistics.median(taken) for taken in samples]
    print(json.dumps({"student": medians[0], "teacher": medians[1]}))


def onnx(folder: Path, file: str, threads: int, shape: tuple[int, int]) -> Callable[[], object]:
    """A run of an ONNX file."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(folder / "onnx" / file), options, providers=["CPUExecutionProvider"]
    )
    given = {"input_ids": 2_000, "attention_mask": 1, "token_type_ids": 0}
    feed = {put.name: np.full(shape, given[put.name], dtype=np.int64) for put in session.get_inputs()}
    return lambda: session.run(None, feed)


def eager(folder: Path, file: str, threads: int, shape: tuple[int, int]) -> Callable[[], object]:
    """A run of stock transformers, eager."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder).eval()
    feed = {
        "input_ids": torch.full(shape, 2_000),
        "attention_mask": torch.ones(shape, dtype=torch.long),
    }

    def run() -> object:
        with torch.inference_mode():
            return model(**feed)

    return run


if __name__ == "__main__":
    runtime, student, teacher, *protocol = sys.argv[1:]
    main(runtime, student, teacher, *map(int, protocol))
