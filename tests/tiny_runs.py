"""Searches that take seconds, with separate caches, for tests of runs, commands and exports."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kdnas_core import files
from kdnas_core.architecture import static_student
from kdnas_core.hardware import device_name
from kdnas_core.latency.protocol import question
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.sources import teacher_shape
from kdnas_core.runs.records import Export
from kdnas_core.runs.store import Store
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import RunSpec, parse_spec
from tests.tiny_fields import tiny_fields

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "kdnas_core" / "latency", ROOT / "kdnas_core" / "models")  # of ONNX graphs

Seen = TypeVar("Seen")


def tiny_run(teacher: Path, corpus: Path, **fields: Any) -> RunSpec:
    """A spec of 2 episodes of 3 candidates out of 24, all within the budget; any field may be another."""
    latency = {"budget_ms": 100.0, "sequence_length": 16}
    return parse_spec({**tiny_fields(teacher, corpus), "seed": 7, "latency": latency, **fields})


def no_export(store: Store, export: Export, say: Callable[[str], None]) -> None:
    """The exporter of a worker without exports."""
    raise AssertionError(export)


def share_graphs(cache: Path) -> None:
    """Gives a cache the ONNX graphs that other tests have made with the same sources."""
    sources = sorted(path for folder in SOURCES for path in folder.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    shared = Path(os.environ["KDNAS_TESTS_SHARED"]) / f"graphs-{digest[:12]}"
    shared.mkdir(exist_ok=True)
    cache.mkdir(exist_ok=True)
    (cache / "graphs").symlink_to(shared)


@contextmanager
def own_machine(folder: Path) -> Iterator[None]:
    """Sets a separate cache and device lock, one thread, float32, and a PYTHONPATH for child processes.

    Only ONNX graphs are shared with other tests.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # as the command line does before transformers is imported
    threads = torch.get_num_threads()
    (folder / "tmp").mkdir(parents=True)
    share_graphs(folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDNAS_CACHE", str(folder / "cache"))
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.delenv("KDNAS_DB", raising=False)
        torch.set_num_threads(1)
        try:
            asked = {"device": device_name(), "torch": torch.__version__, "threads": 1}
            files.remember("bfloat16", asked, {"gain": 1.0})
            yield
        finally:
            torch.set_num_threads(threads)


def remember_latencies(spec: RunSpec) -> None:
    """Caches the latencies that a search would measure: 0.1 ms for 100,000 multiply-adds."""
    teacher = teacher_shape(spec.teacher)
    assert teacher is not None
    teacher_ms = teacher.flops(16) / 1e6
    beside = static_student(teacher.hidden_size)
    for architecture in (teacher, beside, *SearchSpace.from_spec(spec.space, teacher)):
        milliseconds = max(1_000, architecture.flops(16)) / 1e6  # a static student takes no product
        reading = _reading(milliseconds, teacher_ms, spec.latency.sequence_length)
        files.remember(
            "latency", question(spec.teacher, teacher, architecture, spec.latency), reading.to_dict()
        )


def _reading(milliseconds: float, teacher_ms: float, length: int) -> LatencyReading:
    return LatencyReading(
        p50=milliseconds,
        p95=milliseconds,
        samples=(milliseconds,) * 100,
        teacher_p50=teacher_ms,
        runtime="onnxruntime",
        dtype="float32",
        threads=1,
        batch_size=1,
        sequence_length=length,
        device=device_name(),
        repeated=0,
        clean=True,
    )


def files_in(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file of a folder, without SQLite's files beside an open store."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def words_task(folder: Path) -> Path:
    """Writes a task whose class depends on one word."""
    folder.mkdir()
    for split, count in (("train", 120), ("validation", 20)):
        rows = [
            {"sentence": f"the {('list', 'class')[index % 2]} of it {index}", "label": index % 2}
            for index in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def wait_for(look: Callable[[], Seen], seconds: float = 60.0, pause: float = 0.01) -> Seen:
    """Waits until `look` returns a true value, and returns that; fails after a number of seconds."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not seen within {seconds:.0f} seconds"
        time.sleep(pause)
    return seen


def searched(folder: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """Runs a search by the command line, and returns its output and its store in `folder`."""
    spec, store = folder / "spec.json", folder / "runs.db"
    spec.write_text(json.dumps(fields), encoding="utf-8")
    return called("search", "--spec", spec, "--db", store), store


def called(*arguments: object) -> dict[str, Any]:
    """Runs the command line in a separate process, and returns its JSON output."""
    command = [sys.executable, "-m", "kdnas_core", *map(str, arguments), "--json"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    printed: dict[str, Any] = json.loads(child.stdout)
    return printed
