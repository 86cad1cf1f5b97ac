from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from kdnas_core.cli import doctor
from tests.filled_store import fill
from tests.test_cli import call


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged teacher takes seconds to load."""
    monkeypatch.setattr(doctor, "_teacher", lambda: "the packaged one loads")


def checks(db: Path, code: int = 0) -> dict[str, tuple[bool, str]]:
    called = call("doctor", "--json", "--db", db)
    assert called.code == code
    return {check["name"]: (check["ok"], check["says"]) for check in json.loads(called.out)["checks"]}


def test_a_machine_in_order_is_described(tmp_path: Path, fresh_cache: Path) -> None:
    fill(tmp_path / "runs.db")
    found = checks(tmp_path / "runs.db")
    assert all(ok for ok, _ in found.values())
    assert "torch 2." in found["versions"][1]
    assert "compute on cpu" in found["device"][1]
    assert "onnxruntime" in found["latency"][1]
    assert "is whole, with 1 runs" in found["store"][1]


def test_a_backup_says_where_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "runs.db")
    printed = call("backup", tmp_path / "copy.db", "--db", tmp_path / "runs.db", "--json").json
    assert printed == {"path": str((tmp_path / "copy.db").resolve())}
    again = call("backup", tmp_path / "copy.db", "--db", tmp_path / "runs.db")
    assert (again.code, again.out) == (2, "") and "exists already" in again.err


def test_in_a_container_of_one_core_one_thread_computes_unless_more_are_asked_for() -> None:
    code = (
        "import kdnas_core.cli.base as b; b.prepare_libraries(); import torch; print(torch.get_num_threads())"
    )
    plain = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    limited = {**plain, "LOKY_MAX_CPU_COUNT": "1"}  # stands for the limit of a container
    for environment, expected in ((limited, "1"), ({**limited, "OMP_NUM_THREADS": "2"}, "2")):
        child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert child.stdout.strip() == expected


def test_a_store_that_is_not_there_yet_is_no_fault_and_is_not_made(tmp_path: Path, fresh_cache: Path) -> None:
    assert checks(tmp_path / "new" / "runs.db")["store"][0]
    assert not (tmp_path / "new").exists()


def test_a_damaged_store_is_told_in_a_sentence_beside_all_else(tmp_path: Path, fresh_cache: Path) -> None:
    db = tmp_path / "runs.db"
    fill(db)
    pages = bytearray(db.read_bytes())
    pages[8_192:16_384] = b"\xff" * 8_192
    db.write_bytes(bytes(pages))
    found = checks(db, code=1)
    assert not found["store"][0]
    assert found["versions"][0]


def test_a_disk_without_room_is_told(
    tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**10, 10**10, 10**8))
    ok, says = checks(tmp_path / "runs.db", code=1)["disk of the cache"]
    assert not ok
    assert "0.1 GB free; make room" in says


def test_it_reads_as_lines_too(tmp_path: Path, fresh_cache: Path) -> None:
    lines = call("doctor", "--db", tmp_path / "runs.db").out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok    ") for line in lines)


@pytest.mark.slow
def test_the_packaged_teacher_is_loaded_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "has the checksums" in doctor._teacher()
