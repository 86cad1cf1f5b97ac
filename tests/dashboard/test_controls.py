from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model import progress
from kdnas_core.errors import BadInput, Failure
from kdnas_core.package.layout import write_sums
from kdnas_core.runs.jobs import Job, RunState, Worker
from kdnas_core.runs.names import Source, source_named
from kdnas_core.runs.picks import picks
from kdnas_core.runs.store import opened
from kdnas_core.spec import LatencySpec, RunSpec
from tests.filled_store import fill
from tests.package.makers import CHECKS
from tests.served import Served, served

__all__ = ["served"]  # the fixture


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def state(db: Path, run: int) -> RunState:
    with opened(db, read_only=True) as store:
        return store.run(run).state


def test_a_running_run_is_asked_and_one_that_waits_changes_at_once(db: Path) -> None:
    running = fill(db, episodes=1, state="running")
    assert "in a moment" in controls.pause(db, Job("runs", running))
    assert state(db, running) == "running"
    paused = fill(db, episodes=1, state="paused")
    assert controls.stop(db, Job("runs", paused)) == f"Run {paused} is stopped."
    assert state(db, paused) == "stopped"


def test_a_resumed_run_is_queued_and_served(db: Path, served: Served) -> None:
    run = fill(db, episodes=1, state="interrupted")
    controls.resume(db, Job("runs", run))
    assert state(db, run) == "queued"
    assert (served.stores, served.exports) == ([db], [])


def test_an_extended_run_is_queued_for_more_episodes_and_served(db: Path, served: Served) -> None:
    run = fill(db, episodes=2)
    assert controls.extend(db, Job("runs", run), 3) == f"Run {run} goes on for 3 more episodes."
    with opened(db, read_only=True) as store:
        assert (store.run(run).state, store.run(run).spec.search.episodes) == ("queued", 5)
    assert served.stores == [db]
    with pytest.raises(BadInput, match="pause it"):
        controls.extend(db, Job("runs", run), 1)


def test_the_configs_of_all_picks_come_in_one_zip(db: Path) -> None:
    run = fill(db, spec=RunSpec(latency=LatencySpec(budget_speedup=[1.5, 3.0, 1_000.0])))
    with opened(db, read_only=True) as store:
        found = picks(store.run(run), store.candidates(run))
    with zipfile.ZipFile(io.BytesIO(controls.configs_of(db, run, found))) as archive:
        assert archive.namelist() == ["1.5x/config.json", "3x/config.json"]  # nothing is so fast
        for pick in found[:2]:
            assert pick.best is not None
            config = json.loads(archive.read(f"{pick.limit}/config.json"))
            assert config["hidden_size"] == pick.best.architecture.hidden_size


def test_an_export_is_queued_beside_the_store_and_takes_the_place_of_one_that_is_over(
    db: Path, served: Served
) -> None:
    source = first_source(db)
    assert controls.export(db, source, False) == "The export of candidate 1 is queued."
    with opened(db) as store:
        [first] = store.exports()
        folder = str(db.parent / "exports" / "runs.db-run-1-candidate-1")
        assert (first.spec.folder, first.spec.formats, first.subject) == (folder, ["hf"], "1")
        store.ask(first.job, "stop")
    controls.export(db, source, True)
    with opened(db, read_only=True) as store:
        [second] = store.exports(candidate=1)
        assert (second.id, second.spec.formats) == (2, ["hf", "onnx"])
    assert (served.stores, served.exports) == ([], [db, db])


def test_an_interrupted_export_goes_on_in_the_lane_of_exports(db: Path, served: Served) -> None:
    controls.export(db, first_source(db), False)
    with opened(db) as store:
        claimed = store.claim(Worker.this_process(), ["exports"])
        assert claimed is not None
        store.end(claimed.job, "interrupted")
    controls.resume(db, claimed.job)
    with opened(db, read_only=True) as store:
        assert store.export(1).state == "queued"
    assert (served.stores, served.exports) == ([], [db, db])


def test_a_finished_run_cannot_be_paused_and_says_why(db: Path) -> None:
    run = fill(db)
    with pytest.raises(BadInput, match="finished"):
        controls.pause(db, Job("runs", run))


def test_deleting_takes_the_files_along(db: Path) -> None:
    run = fill(db, episodes=1)
    with opened(db, read_only=True) as store:
        folder = store.files(run)
    assert folder.is_dir()
    controls.delete(db, Job("runs", run))
    assert not folder.exists()


def test_a_candidate_without_weights_is_not_exported_and_leaves_no_folder(db: Path) -> None:
    run = fill(db)
    with opened(db) as store:
        candidate = progress.distilled(store.candidates(run))[0]
        store.update_candidate(candidate.id, weights=0)  # another process took them meanwhile
    with pytest.raises(BadInput, match="no weights"):
        controls.export(db, Source(candidate), False)
    with opened(db, read_only=True) as store:
        assert store.exports() == []
    assert controls.earlier_export(db, Source(candidate)) is None


def first_source(db: Path) -> Source:
    run = fill(db, episodes=1)
    with opened(db, read_only=True) as store:
        found = Source(store.candidates(run)[0])
    (controls.own_folder(db, found) / "model.safetensors").write_bytes(b"ours")
    return found


def finished_student(db: Path) -> Source:
    fill(db, students=True)
    with opened(db, read_only=True) as store:
        return source_named(store, "s1")


def exported_by_hand(db: Path, source: Source, folder: Path, weights: bytes) -> None:
    """Files as an export leaves them; the weights in the store are `ours`."""
    own = controls.own_folder(db, source)
    own.mkdir(parents=True, exist_ok=True)
    (own / "model.safetensors").write_bytes(b"ours")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "kdnas.json").write_text(json.dumps({"checks": CHECKS.to_dict()}))
    write_sums(folder)


@pytest.mark.parametrize("made", [first_source, finished_student])
def test_an_earlier_export_is_found_with_its_files_digest_and_checks(
    db: Path, made: Callable[[Path], Source]
) -> None:
    source = made(db)
    folder = controls.export_folder(db, source)
    exported_by_hand(db, source, folder, b"ours")
    told = controls.earlier_export(db, source)
    assert told is not None
    name = f"candidate-{source.name}" if source.student is None else "student-s1"
    assert told.path == folder == db.parent / "exports" / f"{db.name}-run-1-{name}"
    assert told.files == ["SHA256SUMS", "kdnas.json", "model.safetensors"]
    assert told.sha256 == hashlib.sha256(b"ours").hexdigest()
    assert told.checks == CHECKS


def test_the_next_export_is_numbered_and_the_last_of_the_same_weights_is_shown(db: Path) -> None:
    source = first_source(db)
    for weights in (b"ours", b"ours", b"of a store before"):
        exported_by_hand(db, source, controls.export_folder(db, source), weights)
    assert controls.export_folder(db, source).name.endswith("candidate-1-4")
    told = controls.earlier_export(db, source)
    assert told is not None
    assert told.path.name.endswith("candidate-1-2")


@pytest.mark.parametrize("damaged", ["kdnas.json", "SHA256SUMS"])
def test_an_export_that_is_not_whole_is_not_handed_out(db: Path, damaged: str) -> None:
    source = first_source(db)
    folder = controls.export_folder(db, source)
    exported_by_hand(db, source, folder, b"ours")
    (folder / damaged).write_text("{}")
    assert controls.earlier_export(db, source) is None


def test_students_and_scorings_are_paused_stopped_and_deleted_like_runs(db: Path) -> None:
    fill(db, students=True)
    assert controls.pause(db, Job("students", 3)) == "Student s3 will pause in a moment."
    assert controls.stop(db, Job("students", 4)) == "Student s4 is stopped."
    assert controls.stop(db, Job("scorings", 3)) == "Scoring 3 will stop in a moment."
    assert controls.delete(db, Job("scorings", 1)) == "Scoring 1 is deleted."
    with opened(db, read_only=True) as store:
        folder = store.student_files(1, 2)
        assert store.student(3).request == "pause"
    with pytest.raises(BadInput, match="needed by scoring 3"):
        controls.delete(db, Job("students", 2))
    assert folder.is_dir()


def test_the_zip_holds_every_file_under_the_name_of_the_folder(db: Path) -> None:
    source = first_source(db)
    folder = controls.export_folder(db, source)
    exported_by_hand(db, source, folder, b"ours")
    # bytes: of what else a callable may give to a download button, files that can be written are refused
    with zipfile.ZipFile(io.BytesIO(controls.zipped(folder))) as archive:
        assert archive.namelist() == [
            f"{folder.name}/{name}" for name in ("SHA256SUMS", "kdnas.json", "model.safetensors")
        ]
        assert archive.testzip() is None
    (folder / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(Failure, match="was changed"):
        controls.zipped(folder)
