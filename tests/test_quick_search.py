"""The whole search of a first start: the packaged teacher, the harvested corpus, ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.search.pareto import frontier

ROOT = Path(__file__).resolve().parents[1]


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "kdnas_core", *arguments, "--json", "--db", str(folder / "runs.db")],
        cwd=ROOT,
        env={**os.environ, "KDNAS_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


@pytest.mark.slow
def test_the_quick_search_fills_a_frontier_and_its_pick_can_be_exported(
    tmp_path: Path, harvested: Path
) -> None:
    shutil.copytree(harvested, tmp_path / "cache")
    fewer = ["--set", "search.episodes=2", "--set", "search.candidates=5"]
    summary = command(tmp_path, "search", "--quick", *fewer)
    assert summary["state"] == "finished"
    assert summary["failed"] == 0

    candidates = command(tmp_path, "show", str(summary["run"]))["candidates"]
    done = [candidate for candidate in candidates if candidate["state"] == "done"]
    pruned = [candidate for candidate in candidates if candidate["state"] == "pruned"]
    # how many are over the budget depends on the machine, and so what is stopped early
    over = [candidate for candidate in candidates if candidate["state"] == "over_budget"]
    assert len(done) + len(pruned) + len(over) == 11  # the static student is one more
    static, *done = done
    assert static["architecture"]["layers"] == 0
    assert (len(over), len(pruned)) == (summary["over_budget"], summary["pruned"])
    assert all(candidate["loss"] is None for candidate in over)
    assert all(candidate["speedup"] >= 2 for candidate in done)
    knobs = ("layers", "hidden_size", "intermediate_size")
    assert len(done) >= 4
    assert len(done) + len(pruned) >= 7
    assert len({tuple(row["architecture"][knob] for knob in knobs) for row in (*done, *pruned)}) >= 5

    assert summary["frontier"][0] == static  # the fastest by far
    assert all(row["speedup"] >= 2 for row in summary["frontier"])
    points = [(row["latency_ms"]["p50"], row["loss"]) for row in done]
    front = [done[index] for index in frontier(points)]
    assert len(front) >= 2
    assert front[0]["loss"] > 1.1 * front[-1]["loss"]

    best = command(tmp_path, "pick", str(summary["run"]), "--speedup", "3")["candidate"]
    assert best["speedup"] >= 3
    exported = command(tmp_path, "export", str(best["id"]), str(tmp_path / "student"))
    assert exported["verified"] is True
