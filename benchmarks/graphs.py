"""Is the ONNX graph that is shipped a fast one?

Run it with `python -m benchmarks.graphs`. The packaged teacher and students of several shapes, each as torch
exports it (with SDPA and the shapes of all values), as ONNX Runtime's own optimizer rewrites that, and as it
is shipped, take turns in one process; medians of clean runs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from itertools import product
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.transformers import optimizer
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.hardware import exclusive
from kdnas_core.latency.onnx import input_names, output_name, write_onnx
from kdnas_core.latency.protocol import TimedRun, time_in_turns
from kdnas_core.latency.runtimes import session_from, session_runner, threads
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import load_teacher
from kdnas_core.spec import LatencySpec

SHAPES = (
    Architecture(1, 384, 768, 12),
    Architecture(2, 384, 384, 6),
    Architecture(3, 192, 384, 6),
    Architecture(4, 288, 768, 3),
)
PROTOCOLS = tuple(
    LatencySpec(threads=count, sequence_length=length) for count, length in product((1, 2), (32, 128))
)


def main() -> None:
    """Prints the milliseconds of each graph and their ratios to torch's, and JSON last."""
    teacher = load_teacher("packaged")
    models = {"teacher": teacher.model} | {shape.key: new_student(teacher, shape, 0) for shape in SHAPES}
    found = {name: _rows(name, model) for name, model in models.items()}
    rows = [row for of_model in found.values() for row in of_model]
    ratios = {
        kind: statistics.median(row[kind] / row["torch"] for row in rows) for kind in ("optimizer", "shipped")
    }
    print(json.dumps({"median_ratio_to_torch": ratios, "rows": found}))


def _rows(name: str, model: PreTrainedModel) -> list[dict[str, float]]:
    rows = []
    with tempfile.TemporaryDirectory() as made:
        files = _files(model, Path(made))
        for protocol in PROTOCOLS:
            runners = [
                session_runner(session_from(path, protocol), model, protocol) for path in files.values()
            ]
            ms = dict(zip(files, _medians(runners, protocol), strict=True))
            row = {"threads": protocol.threads, "tokens": protocol.sequence_length, **ms}
            print(f"{name:<24}" + "".join(f"{key}: {value:<10.4g}" for key, value in row.items()), flush=True)
            rows.append(row)
    return rows


def _files(model: PreTrainedModel, folder: Path) -> dict[str, Path]:
    files = {kind: folder / f"{kind}.onnx" for kind in ("torch", "optimizer", "shipped")}
    _export_plainly(model, files["torch"])
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    rewritten = optimizer.optimize_model(str(files["torch"]), "bert", heads, width, opt_level=0)
    rewritten.save_model_to_file(str(files["optimizer"]))
    write_onnx(model, files["shipped"])
    return files


def _export_plainly(model: PreTrainedModel, path: Path) -> None:
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    names, ids = input_names(model), torch.ones(2, 16, dtype=torch.long)
    torch.onnx.export(
        model.eval(),
        kwargs={name: ids.clone() for name in names},
        f=path,
        dynamo=True,
        input_names=list(names),
        output_names=[output_name(model)],
        dynamic_shapes={name: axes for name in names},
        external_data=False,
        verbose=False,
    )


def _medians(runners: list[TimedRun], protocol: LatencySpec) -> list[float]:
    with exclusive(), threads(protocol):
        timings = time_in_turns(runners, protocol.warmup, protocol.runs)
    return [round(statistics.median(timing.samples), 3) for timing in timings]


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(3)
    main()
