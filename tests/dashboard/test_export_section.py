from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.model_page import export_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import places
from kdnas_core.package.checks import Checks, Exported, read_export
from kdnas_core.package.layout import write_sums
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import Export
from kdnas_core.runs.store import opened
from kdnas_core.spec import ExportSpec
from tests.filled_store import fill
from tests.package.makers import CHECKS
from tests.served import served
from tests.test_pages import buttons, db, shown, words

__all__ = ["db", "served"]  # the fixtures


def made(db: Path, source: Source, checks: Checks) -> Exported:
    """Writes an export with a tiny config beside the store."""
    folder = controls.export_folder(db, source)
    (folder / "onnx").mkdir(parents=True) if checks.onnx else folder.mkdir(parents=True)
    own = controls.own_folder(db, source)
    (own / "model.safetensors").write_bytes(b"weights")
    for name in ("model.safetensors", "config.json"):
        shutil.copy(own / name, folder / name)
    (folder / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "model_max_length": 128}')
    (folder / "kdnas.json").write_text(json.dumps({"checks": checks.to_dict()}))
    write_sums(folder)
    return read_export(folder)


@pytest.fixture
def candidate(db: Path) -> Source:
    run = fill(db)
    with opened(db, read_only=True) as store:
        found = Source(next(row for row in store.candidates(run) if row.state == "done"))
    (controls.own_folder(db, found) / "model.safetensors").write_bytes(b"weights")
    return found


def press(app: AppTest, label: str) -> AppTest:
    [button] = [button for button in app.button if button.label == label]
    return button.click().run()


def finish(db: Path, source: Source) -> None:
    """Ends the queued export as a worker would."""
    with opened(db) as store:
        claimed = store.claim(Worker.this_process(), ["exports"])
        assert isinstance(claimed, Export)
        made(db, source, CHECKS if "onnx" in claimed.spec.formats else replace(CHECKS, onnx=None))
        store.end(claimed.job, "finished")


@pytest.mark.usefixtures("served")
def test_an_export_is_made_with_onnx_files_unless_they_are_not_wanted(db: Path, candidate: Source) -> None:
    app = shown(places.CANDIDATE, candidate=candidate.candidate.id)
    [box] = [box for box in app.checkbox if box.label == "with ONNX files"]
    app = box.uncheck().run()
    app = press(app, "Export")
    assert "Export** · transformers" in words(app)
    assert "Waiting for a worker" in words(app)
    assert "Export" not in buttons(app)
    finish(db, candidate)
    app = app.run()
    assert "sha256 of model.safetensors" in words(app)
    assert "onnxruntime alone" not in words(app)
    app = press(app, "Export with ONNX files")
    finish(db, candidate)
    assert "onnxruntime alone" in words(app.run())


def test_an_export_at_work_says_what_it_does_and_can_be_stopped(db: Path, candidate: Source) -> None:
    with opened(db) as store:
        spec, row = ExportSpec(folder=str(db.parent / "target")), candidate.candidate
        export = store.create_export(spec, candidate=row.id)
        claimed = store.claim(Worker.this_process(), ["exports"])
        assert claimed is not None
        store.set_activity(claimed.job, "measuring the latency again: torch")
    app = shown(places.CANDIDATE, candidate=candidate.candidate.id)
    assert "Measuring the latency again\\: torch …" in words(app)
    press(app, "Stop")
    with opened(db, read_only=True) as store:
        assert store.export(export).request == "stop"


def test_a_finished_export_says_what_was_checked_what_int8_lost_and_how_to_load_it(
    db: Path, candidate: Source
) -> None:
    made(db, candidate, CHECKS)
    app = shown(places.CANDIDATE, candidate=candidate.candidate.id)
    text = words(app)
    assert not {"Export", "Export with ONNX files"} & buttons(app)
    assert "differs from torch by at most" in text
    assert any("keeps only 95" in warning.value for warning in app.warning), "less than 98 %"
    assert any("Nothing else was found" in info.value for info in app.info)
    assert [code for code in app.code if "AutoModel.from_pretrained" in code.value]
    assert [code for code in app.code if "onnxruntime.InferenceSession" in code.value]
    tables = [frame.value for frame in app.dataframe]
    [latencies] = [table for table in tables if "speed-up" in table.columns and "measured" in table.columns]
    assert list(latencies["measured"]) == ["in the search", "this export", "this export"]
    [files] = [table for table in tables if "sha256" in table.columns]
    assert "model.safetensors" in set(files["file"])


def test_a_complete_export_is_not_drawn_again_while_its_zip_may_be_asked_for(
    db: Path, candidate: Source
) -> None:
    told = made(db, candidate, CHECKS)
    with opened(db) as store:
        export = store.export(
            store.create_export(ExportSpec(folder=str(told.path)), candidate=candidate.candidate.id)
        )
    assert export_section.refresh_s(export, told) == live.BUSY_REFRESH_S, "another is at work"
    assert export_section.refresh_s(replace(export, state="finished"), told) is None
    assert export_section.refresh_s(None, told) is None
    assert export_section.refresh_s(None, None) == live.IDLE_REFRESH_S


@pytest.mark.usefixtures("served")
def test_an_export_that_fails_is_said_and_can_be_tried_again(db: Path, candidate: Source) -> None:
    app = press(shown(places.CANDIDATE, candidate=candidate.candidate.id), "Export")
    with opened(db) as store:
        claimed = store.claim(Worker.this_process(), ["exports"])
        assert claimed is not None
        store.end(claimed.job, "failed", "The export was not made: it is broken.")
    app = app.run()
    assert any("it is broken" in error.value for error in app.error)
    assert "Export" in buttons(app)
