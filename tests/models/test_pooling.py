from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from kdnas_core.errors import BadInput
from kdnas_core.models import sources
from kdnas_core.models.pooling import Pooling, is_embedding_teacher, pooling_mode, pooling_of


def test_the_packaged_teacher_takes_the_mean_of_256_tokens() -> None:
    assert pooling_of("packaged") == Pooling("mean", normalised=True, length=256)


def embedding(folder: Path, kinds: list[str], pooling: dict[str, Any]) -> str:
    modules = [{"type": f"anything.{kind}", "path": "" if kind == "Transformer" else kind} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "Pooling").mkdir()
    (folder / "Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


@pytest.mark.parametrize(
    ("kinds", "pooling", "expected"),
    [
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, Pooling("max", False, None)),
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode": "cls"}, Pooling("cls", True, None)),
        (["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True}, "steps of its own"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "steps of its own",
        ),
        (["Transformer", "Pooling", "Dense"], {"pooling_mode": "mean"}, "steps of its own"),
    ],
)
def test_pooling_is_taken_over_where_a_student_can_do_it(
    tmp_path: Path, kinds: list[str], pooling: dict[str, Any], expected: Pooling | str
) -> None:
    found = pooling_of(embedding(tmp_path, kinds, pooling))
    assert found == expected or (isinstance(found, str) and str(expected) in found)


def test_a_teacher_without_modules_makes_no_vectors(tmp_path: Path) -> None:
    assert pooling_of(str(tmp_path)) is None
    assert pooling_of(str(tmp_path / "gone")) is None


def test_a_teacher_of_vectors_is_told_by_what_lies_beside_it(tmp_path: Path) -> None:
    assert is_embedding_teacher("packaged")
    assert not is_embedding_teacher(str(tmp_path))
    (tmp_path / "modules.json").write_text(json.dumps([]))
    assert is_embedding_teacher(str(tmp_path))
    with pytest.raises(BadInput):
        is_embedding_teacher(str(tmp_path / "nowhere" / "at" / "all"))


@pytest.mark.parametrize(
    ("kinds", "pooling", "mode"),
    [
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode": "cls"}, "cls"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, "max"),
        (["Transformer", "Pooling", "Dense"], {"pooling_mode": "max"}, "mean"),  # steps that we cannot do
        (["Transformer"], {}, "mean"),
    ],
)
def test_students_are_compared_by_vectors_made_as_the_teachers_or_by_the_mean(
    tmp_path: Path, kinds: list[str], pooling: dict[str, Any], mode: str
) -> None:
    assert pooling_mode(str(tmp_path)) == "mean"
    assert pooling_mode(embedding(tmp_path, kinds, pooling)) == mode


def test_the_hub_is_asked_for_its_list_of_files_and_no_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(self: object, name: str, timeout: float) -> SimpleNamespace:
        assert timeout < 5
        if name == "owner/away":
            raise ConnectionError("no network")
        names = ["config.json", *(["modules.json"] if name == "owner/vectors" else [])]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=each) for each in names])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    monkeypatch.setattr(sources, "_LISTED", {})
    assert [is_embedding_teacher(f"owner/{name}") for name in ("vectors", "plain", "away")] == [
        True,
        False,
        False,
    ]
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "model_info",
        lambda self, name, timeout: answer(self, "owner/vectors", timeout),
    )
    assert is_embedding_teacher("owner/away"), "that a hub did not answer is not remembered"
    assert not is_embedding_teacher("owner/plain"), "what it answered is"
