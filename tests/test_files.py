from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdnas_core.files import (
    cache_folder,
    delete_beyond,
    discard,
    keep_latest,
    own_folder,
    recall,
    remember,
    remembered,
    write_whole,
)
from kdnas_core.latency.protocol import recall_latency
from tests.tiny import reading_of

QUESTION = {"model": "packaged", "threads": 1}


def test_the_cache_is_where_the_environment_says(fresh_cache: Path) -> None:
    assert cache_folder() == fresh_cache


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_is_else_the_users_own(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("KDNAS_CACHE")
    if value is not None:
        monkeypatch.setenv("KDNAS_CACHE", value)
    assert cache_folder().name == "kdnas-studio"
    assert cache_folder().is_absolute()


def test_an_answer_is_remembered_and_a_later_one_replaces_it(fresh_cache: Path) -> None:
    assert recall("gain", QUESTION) is None
    remember("gain", QUESTION, {"gain": 1.5})
    assert recall("gain", QUESTION) == {"gain": 1.5}
    remember("gain", QUESTION, {"gain": 2.0})
    assert recall("gain", QUESTION) == {"gain": 2.0}
    assert len(list((fresh_cache / "gain").iterdir())) == 1


@pytest.mark.usefixtures("fresh_cache")
def test_other_questions_and_other_kinds_have_other_answers() -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    assert recall("gain", {**QUESTION, "threads": 2}) is None
    assert recall("gain", {"model": "packaged"}) is None
    assert recall("latency", QUESTION) is None


@pytest.mark.usefixtures("fresh_cache")
def test_the_order_of_a_questions_fields_does_not_matter() -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    assert recall("gain", dict(reversed(QUESTION.items()))) == {"gain": 1.5}


def test_a_fact_is_kept_with_its_question_so_that_a_person_can_read_it(fresh_cache: Path) -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    (path,) = (fresh_cache / "gain").iterdir()
    assert json.loads(path.read_text()) == {"question": QUESTION, "answer": {"gain": 1.5}}


@pytest.mark.parametrize("content", [b"", b'{"answer"', b"\0" * 64, b"\xff\xfe\xfd"])
def test_a_damaged_fact_is_as_if_it_were_never_remembered(fresh_cache: Path, content: bytes) -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    (path,) = (fresh_cache / "gain").iterdir()
    path.write_bytes(content)
    assert recall("gain", QUESTION) is None
    remember("gain", QUESTION, {"gain": 2.5})
    assert recall("gain", QUESTION) == {"gain": 2.5}


@pytest.mark.usefixtures("fresh_cache")
def test_a_latency_is_recalled_as_it_was_read() -> None:
    assert recall_latency(QUESTION) is None
    remember("latency", QUESTION, reading_of(3.25).to_dict())
    assert recall_latency(QUESTION) == reading_of(3.25)


def test_all_facts_of_a_kind_are_listed_with_their_questions(fresh_cache: Path) -> None:
    assert remembered("gain") == []
    facts = [({"threads": threads}, {"gain": threads / 2}) for threads in range(5)]
    for question, answer in facts:
        remember("gain", question, answer)
    remember("other", QUESTION, {"gain": 9.0})
    listed = remembered("gain")
    assert sorted(listed, key=lambda fact: fact[0]["threads"]) == facts
    assert remembered("gain") == listed


def test_a_fact_that_changes_or_goes_is_listed_as_it_is_now(fresh_cache: Path) -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    assert remembered("gain") == [(QUESTION, {"gain": 1.5})]
    remember("gain", QUESTION, {"gain": 2.25})
    assert remembered("gain") == [(QUESTION, {"gain": 2.25})]
    (path,) = (fresh_cache / "gain").iterdir()
    path.unlink()
    assert remembered("gain") == []


def test_a_fact_that_stays_the_same_is_read_once(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    remembered("gain")
    monkeypatch.setattr(Path, "read_bytes", None)
    assert remembered("gain") == [(QUESTION, {"gain": 1.5})]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"answer"', b"\0" * 64, b"\xff\xfe\xfd", b"[]", b"3", b"{}", b'{"question": 1, "answer": 2}'],
)
def test_damaged_facts_are_not_listed(fresh_cache: Path, content: bytes) -> None:
    remember("gain", QUESTION, {"gain": 1.5})
    (fresh_cache / "gain" / "damaged.json").write_bytes(content)
    (fresh_cache / "gain" / "folder.json").mkdir()
    assert remembered("gain") == [(QUESTION, {"gain": 1.5})]


def test_writing_replaces_a_file_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_while_writing_leaves_the_earlier_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fact.json"
    write_whole(path, b"first")

    def crash(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_folder_of_ones_own_is_empty_and_gone_after_its_block(tmp_path: Path) -> None:
    with own_folder(tmp_path, ".mine-") as own:
        assert own.parent == tmp_path
        assert own.name.startswith(".mine-")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from kdnas_core.files import own_folder
with own_folder(Path({str(tmp_path)!r}), ".mine-") as own:
    print(own.name, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with own_folder(tmp_path, ".mine-"):
            assert (tmp_path / name).is_dir()
        other.kill()
    assert (tmp_path / name).is_dir()
    with own_folder(tmp_path, ".mine-"):
        assert not (tmp_path / name).exists()


def test_a_folder_of_the_same_prefix_that_holds_no_lock_is_not_ours_to_remove(tmp_path: Path) -> None:
    (tmp_path / ".mine-x").mkdir()
    with own_folder(tmp_path, ".mine-"):
        pass
    assert (tmp_path / ".mine-x").is_dir()


def test_the_folders_that_were_not_used_for_longest_go_until_the_others_fit(
    tmp_path: Path,
) -> None:
    for age, name in enumerate(("new", "middle", "old", "spared")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1_000 - age, 1_000 - age))
    (tmp_path / "file").write_bytes(b"x" * 100)  # no folder, so not ours
    (tmp_path / ".discarded-by-a-killed-process").mkdir()
    delete_beyond(tmp_path, 20, spared=tmp_path / "spared")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", "spared", "file"}


def test_a_folder_that_is_gone_already_can_be_discarded(tmp_path: Path) -> None:
    discard(tmp_path / "gone")
    (tmp_path / "here").mkdir()
    discard(tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_only_the_files_that_were_used_last_are_kept_also_while_another_process_deletes_some(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / name for name in "abcd"]
    for age, path in enumerate(paths):
        path.write_text("")
        os.utime(path, (1_000 - age, 1_000 - age))
    keep_latest([tmp_path / "gone", *paths], 2)
    assert sorted(tmp_path.iterdir()) == paths[:2]
