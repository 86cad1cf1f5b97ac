from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kdnas_core.errors import BadInput, Failure
from kdnas_core.runs.store import backup as module
from kdnas_core.runs.store import opened
from kdnas_core.runs.store.backup import backup
from tests.filled_store import fill

EARLIER = Path(__file__).parent / "fixtures" / "version_5.db"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    fill(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def beside(folder: Path) -> list[str]:
    """What is in a folder but for the store and its files."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("runs.db"))


def test_a_backup_holds_all_that_the_store_held(db: Path, tmp_path: Path) -> None:
    backup(db, tmp_path / "copy.db")
    with opened(db, read_only=True) as store, opened(tmp_path / "copy.db", read_only=True) as copy:
        assert copy.runs() == store.runs()
        assert copy.candidates(1) == store.candidates(1)
        assert copy.damage() is None
    assert beside(tmp_path) == ["copy.db"]


def test_a_backup_of_a_store_that_is_written_to_is_of_one_moment(db: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with opened(db) as store:
            count = 0
            while not stop.is_set():  # both change in one transaction
                count += 1
                with store._write():
                    store._set("runs", 1, {"name": str(count)})
                    store._set("candidates", 1, {"error": str(count)})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup(db, tmp_path / f"copy-{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        with opened(tmp_path / f"copy-{number}.db", read_only=True) as copy:
            assert copy.damage() is None
            name, error = copy.run(1).name, copy.candidate(1).error
            assert name == error or not name.isdigit()


def test_a_store_of_an_earlier_version_is_copied_as_it_is(tmp_path: Path) -> None:
    backup(EARLIER, tmp_path / "copy.db")
    with opened(EARLIER, read_only=True) as store, opened(tmp_path / "copy.db", read_only=True) as copy:
        assert copy.runs() == store.runs()


def test_what_cannot_be_copied_is_refused_and_nothing_is_left(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken.db"
    taken.write_text("mine")
    for source, to, says in (
        (tmp_path / "none.db", tmp_path / "copy.db", "There is no"),
        (db, taken, "exists already"),
        (db, tmp_path / "nowhere" / "copy.db", "There is no folder"),
    ):
        with pytest.raises(BadInput, match=says):
            backup(source, to)

    def full(path: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "sync", full)
    with pytest.raises(Failure, match="No space left on device"):
        backup(db, tmp_path / "copy.db")
    assert beside(tmp_path) == ["taken.db"]
    assert taken.read_text() == "mine"
