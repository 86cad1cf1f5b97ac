from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, quick_spec
from tests.exported import sha256, write_export, zipped
from tests.test_cli import call, refused
from tests.tiny_runs import files_in, own_machine


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="module")
def exported(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory, machine: None) -> Path:
    return write_export(tmp_path_factory.mktemp("exported") / "s3", tiny_teacher, student=DistilSpec())


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the process that loads the weights, which tests/test_importing.py has."""
    monkeypatch.setattr("kdnas_core.package.import_.check_weights", lambda *_: None)


@pytest.mark.slow
def test_an_exported_zip_comes_back_and_is_told_as_one_object(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "s3.zip").write_bytes(zipped(exported))
    found = call("import", tmp_path / "s3.zip", "--db", tmp_path / "runs.db", "--json").json
    assert set(found) == {"run", "candidate", "student", "path", "sha256"}
    assert (found["run"], found["candidate"], found["student"]) == (1, 1, "s1")
    assert found["sha256"] == sha256(exported / "model.safetensors")
    assert sha256(Path(found["path"]) / "model.safetensors") == found["sha256"]


@pytest.mark.slow
def test_what_came_back_is_exported_and_comes_back_again_with_the_same_weights_and_figures(
    exported: Path, tmp_path: Path, unloaded: None
) -> None:
    db, again = tmp_path / "runs.db", tmp_path / "again"
    call("import", exported, "--db", db)
    made = call("export", "s1", again, "--db", db, "--json").json
    assert made["sha256"] == sha256(exported / "model.safetensors")
    found = call("import", again, "--db", db, "--json").json
    assert (found["run"], found["student"], found["sha256"]) == (2, "s2", made["sha256"])
    with opened(db, read_only=True) as store:
        first, second = store.run(1), store.run(2)
        assert (first.spec, first.teacher) == (second.spec, second.teacher)
        assert replace(store.candidate(1), id=2, run=2) == store.candidate(2)
        one, other = store.student(1), store.student(2)
        assert (one.spec, one.loss, one.notes, one.seconds) == (
            other.spec,
            other.loss,
            other.notes,
            other.seconds,
        )
        assert (one.loss_se, one.cut_from) == (other.loss_se, other.cut_from) != (None, ())
        assert store.scores(1) == store.scores(2)


def test_people_are_told_where_it_is(exported: Path, tmp_path: Path, unloaded: None) -> None:
    called = call("import", exported, "--db", tmp_path / "runs.db")
    assert called.code == 0
    assert "run 1: student s1" in called.out
    assert str(tmp_path / "runs.db.files" / "1" / "students" / "1") in called.out
    assert "Reading its files ..." in called.err


def test_what_is_no_export_is_refused_with_code_2_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "model").mkdir()
    before = files_in(tmp_path)
    for name in ("a.zip", "model", "missing", "model/../missing/x.zip"):
        refused(call("import", tmp_path / name, "--db", tmp_path / "runs.db"))
    assert files_in(tmp_path) == before


def test_a_search_is_not_imported_and_the_command_that_runs_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(quick_spec().to_json())
    sentence = refused(call("import", tmp_path / "run.json", "--db", tmp_path / "runs.db"))
    assert f"search --spec {tmp_path / 'run.json'}" in sentence


def test_an_imported_run_is_over_and_reads_as_any_other(
    exported: Path, tmp_path: Path, unloaded: None
) -> None:
    db = tmp_path / "runs.db"
    call("import", exported, "--db", db)
    shown = call("show", 1, "--db", db, "--json").json
    assert (shown["run"]["state"], shown["run"]["name"]) == ("finished", "at home (imported)")
    assert "nothing left to resume" in refused(call("resume", 1, "--db", db))
    assert call("show", "s1", "--db", db, "--json").json["scores"][0]["task"] == "packaged"
    assert call("delete", 1, "--db", db).code == 0
    with opened(db, read_only=True) as store:
        assert store.runs() == []
