"""A whole search that judges its candidates by a task, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.spec import parse_spec
from tests.tiny_runs import own_machine, remember_latencies, searched


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[None]:
    with own_machine(tmp_path / "machine"):
        yield


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task whose class depends on one word."""
    folder = tmp_path / "words"
    folder.mkdir()
    for split, count in (("train", 120), ("validation", 20)):
        rows = [
            {"sentence": f"the {('list', 'class')[index % 2]} of it {index}", "label": index % 2}
            for index in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_search_by_accuracy_shows_the_scores_of_its_candidates_and_its_reward_is_made_of_them(
    task: Path, tiny_spec: dict[str, Any], tmp_path: Path
) -> None:
    search = {**tiny_spec["search"], "reward": {"mode": "accuracy"}}
    fields = {**tiny_spec, "search": search, "tasks": [str(task)]}
    remember_latencies(parse_spec(fields))
    summary, _ = searched(tmp_path, fields)
    assert (summary["state"], summary["failed"]) == ("finished", 0)
    assert summary["frontier"]
    for candidate in summary["frontier"]:
        (name, score), *others = candidate["scores"].items()
        assert (name, others) == ("words (proxy)", [])
        assert 0 <= score <= 1
        assert candidate["loss"] > 0
        relative = 1 / (0.6 * candidate["speedup"])
        assert candidate["reward"] == pytest.approx(score * relative**-0.06, rel=1e-6)
    scores = [candidate["scores"]["words (proxy)"] for candidate in summary["frontier"]]
    assert scores == sorted(scores)  # along the frontier slower students are better by it
