from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.errors import BadInput, Failure
from kdnas_core.package import export
from kdnas_core.package.export import export_student
from kdnas_core.package.layout import parse_formats
from kdnas_core.package.target import new_folder
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store
from tests.package.makers import CHECKS, refused
from tests.sentences import is_one_sentence
from tests.tiny_runs import files_in

pytestmark = pytest.mark.usefixtures("unchecked")
ZIP = parse_formats("hf,zip")


@pytest.mark.parametrize(
    "name", ["plain", "../beside", "schöner Ordner 🙂👩‍💻", "new/parents/of/it", "x" * 240]
)
def test_any_plain_new_folder_will_do(
    store: Store, candidate: Candidate, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exported = export_student(store, candidate.id, Path(name), ZIP)
    assert exported.zip is not None
    assert exported.zip.name == f"{Path(name).name}.zip"
    assert {path.name for path in Path(name).parent.iterdir()} >= {Path(name).name, exported.zip.name}
    assert not list(tmp_path.rglob(".kdnas-export-*"))


def test_a_way_through_a_folder_that_is_not_there_leads_where_it_would_without_it(
    store: Store, candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    monkeypatch.chdir(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(BadInput, match="exists already"):
        export_student(store, candidate.id, Path("missing/../taken"))
    assert files_in(tmp_path) == before
    assert not (tmp_path / "missing").exists()
    assert export_student(store, candidate.id, Path("missing/../new")).path == tmp_path / "new"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "a folder of its own"),
        (".", "a folder of its own"),
        ("..", "a folder of its own"),
        ("a/..", "a folder of its own"),
        ("/", "a folder of its own"),
        ("a\0b", "no folder should have"),
        ("a\nb", "no folder should have"),
        ("a\udcffb", "no folder should have"),
        ("x" * 256, "name too long"),
        ("x/" * 3_000, "name too long"),
        ("x" * 252, "name too long"),  # the folder could be, its zip could not
        ("taken", "exists already"),
        ("empty", "exists already"),
        ("file", "exists already"),
        ("dangling", "exists already"),
        ("file/new", "cannot be written"),
        ("file/new/deeper", "cannot be written"),
        ("/sys/kernel/new", "cannot be written"),  # where not even root may write
        ("/proc/new/deeper", "cannot be written"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_name_that_cannot_be_is_refused_in_a_sentence_and_nothing_is_left(
    store: Store, candidate: Candidate, tmp_path: Path, name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert says.lower() in refused(store, candidate.id, Path(name), formats=ZIP).lower()
    assert sorted(tmp_path.rglob("*")) == before
    assert files_in(tmp_path / "taken") == {"mine.txt": b"mine"}


def test_a_zip_that_exists_is_not_overwritten(store: Store, candidate: Candidate, tmp_path: Path) -> None:
    (tmp_path / "student.zip").write_text("mine")
    assert "student.zip exists already" in refused(store, candidate.id, tmp_path / "student", formats=ZIP)
    assert files_in(tmp_path) == {"student.zip": b"mine"}


def test_what_comes_to_the_place_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BadInput), new_folder(tmp_path / "student", with_zip=False) as unfinished:
        (unfinished / "ours").write_text("ours")
        (tmp_path / "student").mkdir()
        (tmp_path / "student" / "theirs").write_text("theirs")
    assert files_in(tmp_path) == {"student/theirs": b"theirs"}
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def _full(*arguments: Any, **more: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def _rename_of_zip(path: Path, target: Path) -> Path:
    if path.suffix == ".zip":
        _full()
    return path.replace(target)


@pytest.mark.parametrize(
    ("at", "stand_in"),
    [
        ("shutil.copyfileobj", _full),
        ("kdnas_core.package.export.checked", _full),
        ("kdnas_core.package.export.write_sums", _full),
        ("kdnas_core.package.export.write_zip", _full),
        ("kdnas_core.package.target.sync_files", _full),
        ("pathlib.Path.rename", _full),
        ("pathlib.Path.rename", _rename_of_zip),
        ("pathlib.Path.mkdir", _full),
    ],
    ids=["copy", "onnx", "sums", "zip", "sync", "rename", "rename of the zip", "mkdir"],
)
def test_a_disk_that_fills_up_is_said_and_nothing_is_left(
    store: Store,
    candidate: Candidate,
    tmp_path: Path,
    at: str,
    stand_in: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(at, stand_in)
    sentence = refused(store, candidate.id, tmp_path / "new" / "student", formats=ZIP)
    monkeypatch.undo()
    assert "is full" in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 150 kB, most of which a tiny student needs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_left_as_it_was(
    store: Store, candidate: Candidate, small_disk: Path
) -> None:
    (small_disk / "mine").write_bytes(bytes(100_000))
    assert "is full" in refused(store, candidate.id, small_disk / "student", formats=ZIP)
    assert [path.name for path in small_disk.iterdir()] == ["mine"]


def test_a_check_that_failed_since_the_disk_is_full_says_so(
    store: Store, candidate: Candidate, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path, *arguments: object) -> None:
        with pytest.raises(OSError, match="space"):
            (folder / "filler").write_bytes(bytes(200_000))
        raise Failure("A library failed in words of its own.")

    monkeypatch.setattr(export, "_copy", lambda *arguments: None)
    monkeypatch.setattr(export, "checked", failing)
    assert "is full" in refused(store, candidate.id, small_disk / "student")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_refused(
    store: Store, candidate: Candidate, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*arguments: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refusing)
    assert os.strerror(number) in refused(store, candidate.id, tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_is_not_the_users_is_refused(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in refused(store, candidate.id, tmp_path / "target")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_nothing_is_left_where_the_user_leaves(
    store: Store, candidate: Candidate, tmp_path: Path, end: type[BaseException]
) -> None:
    def leaving(activity: str) -> None:
        if "card" in activity:
            raise end

    with pytest.raises(end):
        export_student(store, candidate.id, tmp_path / "new" / "student", ZIP, leaving)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_has_left_is_cleared_by_the_next(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    left = tmp_path / ".kdnas-export-abc"
    left.mkdir()
    (left / ".kdnas-lock").touch()
    export_student(store, candidate.id, tmp_path / "student")
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_an_unknown_format_is_refused_in_a_sentence() -> None:
    assert parse_formats("onnx") == {"hf", "onnx"}
    assert parse_formats(" zip , hf") == {"hf", "zip"}
    for text in ("", "pickle", "hf,,zip", "HF", "hf onnx"):
        with pytest.raises(BadInput, match="not known") as error:
            parse_formats(text)
        assert is_one_sentence(str(error.value))


def test_the_export_object_reads_back_what_was_checked(
    store: Store, candidate: Candidate, tmp_path: Path
) -> None:
    exported = export_student(store, candidate.id, tmp_path / "student")
    assert exported.checks == CHECKS
    assert exported.zip is None
    shown = exported.to_dict()
    assert shown["latency_ms"]["torch"] == {"p50": 4.0, "p95": 4.4, "speedup": 2.5}
    assert shown["onnx"]["int8_retained"] == 0.95
