"""A whole search that judges its candidates by a task, as a user runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.spec import parse_spec
from tests.tiny_runs import own_machine, remember_latencies, searched, words_task


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[None]:
    with own_machine(tmp_path / "machine"):
        yield


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return words_task(tmp_path / "words")


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
