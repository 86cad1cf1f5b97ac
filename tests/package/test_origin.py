from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdnas_core.package.facts import Origin, data_fingerprint, origin_of


def test_the_packaged_teacher_has_its_own_name_and_licence() -> None:
    found = origin_of("packaged")
    assert found == Origin("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2", ("en",))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (None, "not stated"),
        ("no front matter", "not stated"),
        ("---\nlicense: [a, b]\n---\n", "not stated"),
        ("---\n: : {\n---\n", "not stated"),
        ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"),
    ],
)
def test_the_licence_of_a_local_teacher_is_what_its_card_says(
    tmp_path: Path, card: str | None, expected: str
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert origin_of(str(tmp_path)) == Origin(expected, None, ())


def test_a_teacher_that_is_gone_or_cannot_be_asked_states_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert origin_of(str(tmp_path / "gone")).licence == "not stated"

    def no_network(*arguments: object, **more: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    assert origin_of("nobody/nothing-of-this-name") == Origin("not stated", "nobody/nothing-of-this-name", ())


def test_the_fingerprint_of_data_changes_with_the_texts_and_not_with_their_place(tmp_path: Path) -> None:
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "en.txt").write_text(text)
    one, same, other = (data_fingerprint(str(tmp_path / folder / "en.txt")) for folder in "abc")
    assert one == same != other
    assert data_fingerprint(str(tmp_path / "a")) == one, "a folder of one language"
    assert len(one) == 64
    assert data_fingerprint(str(tmp_path / "gone.txt")) == "not known"
    assert data_fingerprint("packaged") == data_fingerprint("packaged") != one
    assert data_fingerprint("hub:a/b") != data_fingerprint("hub:a/c")


def test_the_fingerprint_of_a_task_is_that_of_its_training_texts(tmp_path: Path) -> None:
    for folder, text in {"a/mine": "one", "b/mine": "one", "c/mine": "other"}.items():
        (tmp_path / folder).mkdir(parents=True)
        row = json.dumps({"sentence": text, "label": 0})
        (tmp_path / folder / "train.jsonl").write_text(row)
    one, same, other = (data_fingerprint(f"task:{tmp_path / name / 'mine'}") for name in "abc")
    assert one == same != other
    assert "not known" not in (one, other)
    assert data_fingerprint("task:hub:nyu-mll/glue:rte") != "not known", "read without a network"
