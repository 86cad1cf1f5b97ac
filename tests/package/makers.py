"""Helpers of the tests of exports: a student, a copy of a store that may be damaged, made-up checks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.data.harvest import _fingerprint, installed_sources
from kdnas_core.data.packaged_task import LIBRARIES
from kdnas_core.errors import BadInput
from kdnas_core.files import cache_folder
from kdnas_core.package.checks import Checks, OnnxCheck
from kdnas_core.package.export import export_student
from kdnas_core.runs.jobs import Job
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store, files_of
from kdnas_core.spec import DistilSpec
from tests.sentences import is_one_sentence
from tests.tiny import reading_of

CHECKS = Checks(
    parameters=12_345,
    versions={"torch": "2"},
    onnx=OnnxCheck(2e-7, 0.1, "packaged (linear probe)", 0.8, 0.76, 0.95),
    onnxruntime_alone=3e-7,
    sentence_transformers=1e-7,
    latencies={"onnxruntime": reading_of(2.0), "torch": reading_of(4.0)},
    notes=("Nothing else was found.",),
)


def refused(store: Store, candidate: int, target: Path, **more: Any) -> str:
    """Returns the sentence with which an export is refused."""
    with pytest.raises(BadInput) as error:
        export_student(store, candidate, target, **more)
    assert is_one_sentence(str(error.value))
    return str(error.value)


def a_student(store: Store, candidate: Candidate, spec: DistilSpec) -> Path:
    """Adds a finished student, and returns its folder, with a copy of the candidate's files."""
    student = store.create_student(candidate.id, spec)
    folder = store.student_files(1, student)
    shutil.copytree(store.files(1, candidate.id), folder)
    store.end(Job("students", student), "finished")
    return folder


def copied(store: Store, db: Path, folder: Path) -> Path:
    """Copies the store and its files; the copy may be damaged."""
    path = folder / "runs.db"
    store._db.execute("VACUUM INTO ?", [str(path)])
    shutil.copytree(files_of(db), files_of(path))
    return path


def fill_packaged_task(texts: list[str]) -> None:
    """Writes a small harvest to the cache: two libraries, which differ by a word."""
    path = (
        cache_folder() / f"harvest-{_fingerprint(sorted(installed_sources(), key=lambda s: s.package))}.jsonl"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {LIBRARIES[0]: "networks", LIBRARIES[1]: "arrays"}
    rows = [
        {
            "text": f"{words[package]} and what is made of {words[package]}: {text}",
            "package": package,
            "module": f"{package}.m{i}",
        }
        for i, text in enumerate(texts)
        for package in words
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
