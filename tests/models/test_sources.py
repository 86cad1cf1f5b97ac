from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.models import sources
from kdnas_core.models.families import FAMILIES
from kdnas_core.models.sources import (
    cached_teachers,
    check_teacher,
    read_config,
    teacher_folder,
    teacher_shape,
)
from tests.sentences import is_one_sentence


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    """A copy of the tiny teacher, to be damaged."""
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


def refusal(source: Path | str) -> str:
    with pytest.raises(BadInput) as caught:
        check_teacher(str(source))
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def set_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_sound_folder_is_taken_and_its_shape_read(folder: Path) -> None:
    check_teacher(str(folder))
    assert teacher_shape(str(folder)) == Architecture(4, 32, 64, 4, "gelu")


def test_the_packaged_teacher_is_installed_and_of_the_known_shape() -> None:
    check_teacher("packaged")
    assert teacher_shape("packaged") == Architecture(6, 384, 1536, 12, "gelu")


def test_a_packaged_teacher_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PACKAGED_MODULE", "a_package_that_nobody_has")
    assert "not installed" in refusal("packaged")


@pytest.mark.parametrize("hub_id", ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d"])
def test_a_hub_id_is_left_to_the_hub(hub_id: str) -> None:
    assert teacher_folder(hub_id) is None
    assert teacher_shape(hub_id) is None
    check_teacher(hub_id)


def test_a_folder_named_as_a_hub_id_is_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert teacher_folder("teacher") == Path("teacher")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_known_family_is_taken(folder: Path, family: str) -> None:
    set_config(folder, model_type=family)
    check_teacher(str(folder))


@pytest.mark.parametrize("family", ["gpt2", "deberta-v2", "mobilebert", None])
def test_another_family_is_refused_by_its_name(folder: Path, family: str | None) -> None:
    set_config(folder, model_type=family)
    assert repr(family) in refusal(folder)


def test_a_decoder_and_relative_positions_are_refused(folder: Path) -> None:
    set_config(folder, position_embedding_type="relative_key")
    assert "relative_key" in refusal(folder)
    set_config(folder, is_decoder=True)
    assert "is a decoder" in refusal(folder)


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null"])
def test_a_config_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "not a JSON object" in refusal(folder)
    with pytest.raises(BadInput):
        read_config(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_folder_with_pickled_weights_only_is_refused_for_what_a_pickle_can_do(
    folder: Path, name: str
) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert "pickle" in refusal(folder)


def test_a_file_is_refused(folder: Path) -> None:
    assert "is a file" in refusal(folder / "config.json")


@pytest.mark.parametrize(
    "source", ["/no/such/folder", "./teacher", "a/b/c", "../x", "name with spaces", "a//b"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(source: str) -> None:
    assert "There is no folder" in refusal(source)


@pytest.mark.parametrize(
    "field",
    ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "hidden_act"],
)
def test_a_config_that_does_not_say_its_shape_is_refused_by_the_field(folder: Path, field: str) -> None:
    fields = read_config(folder)
    del fields[field]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(BadInput, match=field) as caught:
        teacher_shape(str(folder))
    assert is_one_sentence(str(caught.value))


def test_nothing_heavy_is_imported_to_look_at_a_teacher() -> None:
    seen = subprocess.run(
        [sys.executable, "-c", "import sys, kdnas_core.models.sources; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "False"


def test_models_in_the_hubs_cache_that_can_be_teachers_are_listed(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny_teacher / "config.json").read_text())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached_teachers() == []
    for name, kind, weights in (
        ("models--org--bert", "bert", "model.safetensors"),
        ("models--org--pickled", "bert", "pytorch_model.bin"),
        ("models--org--gpt", "gpt2", "model.safetensors"),
        ("datasets--org--text", "bert", "model.safetensors"),
    ):
        folder = tmp_path / name / "snapshots" / "abc"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        (folder / weights).write_bytes(b"weights")
    assert cached_teachers() == ["org/bert"]

    def refused(folder: Path) -> dict[str, object]:
        raise PermissionError(folder)

    monkeypatch.setattr(sources, "read_config", refused)  # of a cache that others share
    assert cached_teachers() == []
