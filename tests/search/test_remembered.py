from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from kdnas_core.architecture import LayerSource
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.search import remembered as module
from kdnas_core.search.remembered import MiniKD, recall, remember

LOOKS = (
    HeldOut(0, {"hidden": {(1, 2): 0.75, (2, 4): 0.1 + 0.2}}),
    HeldOut(12, {"hidden": {(1, 2): 0.5, (2, 4): 0.25}}, (0.37, 0.38), {"de": 0.5, "en": 0.25}),
)
RESULT = MiniKD(LOOKS[-1], LOOKS, ("A term is left out.",), (LayerSource(2, (1, 3)), LayerSource(4, ())))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def results(cache: Path) -> list[Path]:
    return list((cache / "mini_kd").iterdir())


def test_what_is_remembered_comes_back_exactly_with_the_files_of_its_student(
    fresh_cache: Path, student: Path, tmp_path: Path
) -> None:
    remember({"seed": 1}, RESULT, student)
    known = recall({"seed": 1})
    assert known is not None
    assert (known.mini_kd, known.is_whole) == (RESULT, True)
    known.copy_student(tmp_path / "other")
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"model.safetensors", "config.json"}
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == b"weights"


def test_another_question_is_not_known(fresh_cache: Path, student: Path, tmp_path: Path) -> None:
    assert recall({"seed": 1}) is None
    remember({"seed": 1}, RESULT, student)
    assert recall({"seed": 2}) is None


@pytest.mark.parametrize("name", ["model.safetensors", "result.json", "config.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_result_is_forgotten(
    fresh_cache: Path, student: Path, tmp_path: Path, name: str, damage: str
) -> None:
    remember({"seed": 1}, RESULT, student)
    (result,) = results(fresh_cache)
    if damage == "changed":
        (result / name).write_bytes(b"weigh")
    else:
        (result / name).unlink()
    assert recall({"seed": 1}) is None
    assert results(fresh_cache) == []
    remember({"seed": 1}, RESULT, student)
    assert recall({"seed": 1}) is not None


def test_the_same_result_of_two_searches_is_kept_once(fresh_cache: Path, student: Path) -> None:
    for _ in range(2):
        remember({"seed": 1}, RESULT, student)
    assert len(results(fresh_cache)) == 1


def test_a_disk_without_room_keeps_nothing_and_ends_nothing(
    fresh_cache: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, dirs_exist_ok: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    remember({"seed": 1}, RESULT, student)
    assert results(fresh_cache) == []


def test_a_training_that_was_stopped_at_a_rung_is_kept_until_the_whole_one_is(
    fresh_cache: Path, student: Path
) -> None:
    remember({"seed": 1}, RESULT, None)
    stopped = recall({"seed": 1})
    assert stopped is not None
    assert (stopped.mini_kd, stopped.is_whole) == (RESULT, False)
    for files in (student, None):  # and a whole one stays
        remember({"seed": 1}, RESULT, files)
        whole = recall({"seed": 1})
        assert whole is not None
        assert whole.is_whole
    assert len(results(fresh_cache)) == 1


def test_beyond_the_bound_what_was_not_used_for_longest_is_forgotten(
    fresh_cache: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        remember({"seed": seed}, RESULT, student)
    for path in results(fresh_cache):
        os.utime(path, (1_000, 1_000))
    assert recall({"seed": 1}) is not None  # used again
    size = sum(path.stat().st_size for path in results(fresh_cache)[0].iterdir())
    monkeypatch.setattr(module, "MOST_BYTES", size)  # beside the newest
    remember({"seed": 3}, RESULT, student)
    assert [recall({"seed": seed}) is None for seed in (1, 2, 3)] == [False, True, False]
