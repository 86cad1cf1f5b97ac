from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.latency.sweep import points
from kdnas_core.latency.sweep_bench import SweepListener
from kdnas_core.runs import student_journals
from kdnas_core.runs.store import opened
from kdnas_core.spec import USUAL_RUNTIMES, RunSpec, SweepSpec
from tests.filled_store import fill
from tests.runs.test_sweep_journal import taken_at
from tests.test_cli import call, refused
from tests.tiny_runs import files_in, own_machine

READING = {"runtime", "batch_size", "sequence_length", "p50", "p95", "speedup", "clean", "device"}


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with students, as a worker would have written it; no test may change it."""
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    fill(path, students=True)
    return path


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """A copy of the store, which a test may change."""
    return shutil.copytree(filled_once.parent, tmp_path / "filled") / "runs.db"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SweepSpec]:
    """The requested sweeps; the checks and measurements are replaced."""
    asked: list[SweepSpec] = []

    def measure_sweep(
        spec: RunSpec, how: SweepSpec, architecture: object, taken: int, listener: SweepListener
    ) -> None:
        asked.append(how)
        todo = points(how, spec.latency)
        for count, point in enumerate(todo, 1):
            listener.say("measuring")
            listener.measured(taken_at(point))
            listener.step(count, len(todo))

    monkeypatch.setattr(student_journals, "measure_sweep", measure_sweep)
    monkeypatch.setattr(student_journals, "check_sweep", lambda *given: None)
    return asked


def test_latency_prints_a_reading_of_each_runtime(filled: Path, asked: list[SweepSpec]) -> None:
    called = call("latency", 1, "--db", filled, "--json")
    printed = called.json
    assert set(printed) == {"candidate", "state", "readings"}
    assert (printed["candidate"], printed["state"]) == (1, "finished")
    assert [set(row) for row in printed["readings"]] == [READING] * 3
    assert {(row["runtime"], row["batch_size"], row["sequence_length"]) for row in printed["readings"]} == {
        (runtime, 1, 128) for runtime in USUAL_RUNTIMES
    }
    assert "3/3" in called.err


def test_a_student_is_measured_as_its_candidate_and_a_sweep_goes_over_sizes_and_lengths(
    filled: Path, asked: list[SweepSpec]
) -> None:
    printed = call("latency", "s1", "--sweep", "--runtime", "torch", "--db", filled, "--json").json
    assert printed["candidate"] == 1
    assert asked == [SweepSpec(runtimes=["torch"])]
    assert len(printed["readings"]) == 11
    assert {row["runtime"] for row in printed["readings"]} == {"torch"}
    lines = call("latency", "s1", "--runtime", "torch", "--db", filled).out.splitlines()
    assert len(lines) == 2, "readings that were not asked for are printed"
    assert lines[0].split()[:3] == ["runtime", "batch", "tokens"]


def test_sizes_and_lengths_can_be_named(filled: Path, asked: list[SweepSpec]) -> None:
    options = ["--set", "batch_sizes=[8]", "--runtime", "torch", "--runtime", "onnxruntime"]
    call("latency", 1, *options, "--db", filled)
    assert asked == [SweepSpec(runtimes=["torch", "onnxruntime"], batch_sizes=[8], sequence_lengths=[])]


def test_check_alone_does_nothing(filled: Path, asked: list[SweepSpec]) -> None:
    before = files_in(filled.parent)
    called = call("latency", 1, "--check", "--db", filled)
    assert (called.code, called.out, asked) == (0, "", [])
    assert files_in(filled.parent) == before


def test_what_fails_on_the_way_exits_with_1_and_ctrl_c_with_130(
    filled: Path, asked: list[SweepSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [OSError("no space left on device"), KeyboardInterrupt()]

    def fails(*given: Any) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(student_journals, "measure_sweep", fails)
    called = call("latency", 1, "--db", filled, "--json")
    assert (called.code, json.loads(called.out)["state"]) == (1, "failed")
    assert called.err.splitlines()[-1] == "OSError: no space left on device"
    called = call("latency", 1, "--db", filled, "--json")
    assert (called.code, called.out) == (130, "")
    with opened(filled) as store:
        assert store.sweeps()[0].state == "interrupted"
        assert store.resume(store.sweeps()[0].job) == "queued"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["latency", 99], "There is no candidate 99"),
        (["latency", "s99"], "There is no student s99"),
        (["latency", "x3"], "names no candidate and no student"),
        (["latency", 1, "--runtime", "tensorrt"], "runtimes"),
        (["latency", 1, "--runtime", ""], "runtimes"),
        (["latency", 1, "--set", "runtimes=[]"], "runtimes"),
        (["latency", 1, "--set", "batch_sizes=[0]"], "batch_sizes"),
        (["latency", 1, "--set", "batch_sizes=[1000]"], "batch_sizes"),
        (["latency", 1, "--set", "sequence_lengths=[100000]"], "sequence_lengths"),
        (["latency", 1, "--set", "sequence_lengths=many"], "sequence_lengths"),
        (["latency", 1, "--set", "threads=2"], "'threads' is not a field"),
        (["latency", 1, "--runtime", "torch-cuda"], "needs a CUDA device"),
        (["latency"], "Missing"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    filled_once: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], says: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("KDNAS_DB", str(filled_once))
    before = files_in(filled_once.parent)
    assert says in refused(call(*arguments))
    assert files_in(filled_once.parent) == before


def test_a_store_that_does_not_exist_is_not_made_by_asking_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no runs.db" in refused(call("latency", 1))
    assert list(tmp_path.iterdir()) == []
