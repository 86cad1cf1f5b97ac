from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.loop import Diverged
from kdnas_core.runs import launch, student_journals
from kdnas_core.runs.jobs import Job
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, ScoreSpec
from kdnas_core.students.full import FullResult
from tests.filled_store import fill
from tests.test_cli import Called, call, refused
from tests.tiny_runs import files_in, own_machine, remember_latencies, tiny_run

WORDS = {"good": ["fine", "bright", "clear", "warm"], "bad": ["dull", "cold", "dark", "late"]}
SCORE = {"task", "metric", "student", "teacher", "retained", "spread", "control"}
SCORE |= {"interval", "teacher_interval", "chance", "above_chance", "within_noise", "before"}
AVERAGES = {"average", "teacher_average", "retained", "retained_above_chance", "interval", "within_noise"}
STUDENT = {
    "student",
    "run",
    "candidate",
    "parent",
    "task",
    "state",
    "spec",
    "step",
    "steps",
    "seconds",
    "seconds_left",
    "activity",
    "loss",
    "loss_se",
    "notes",
    "languages",
    "error",
    "created_at",
    "path",
    "bytes",
}


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder for each test."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local task whose class depends on its words."""
    folder, draw = tmp_path_factory.mktemp("task"), random.Random(0)
    for split, count in (("train", 96), ("validation", 32)):
        labels = [draw.choice(list(WORDS)) for _ in range(count)]
        rows = [
            {"sentence": f"The {draw.choice(WORDS[label])} day {number}", "label": label}
            for number, label in enumerate(labels)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def distilled(
    tiny_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory, machine: None
) -> tuple[Path, Called]:
    """A store with a real search of 2 candidates, and what `distill 1` did in it."""
    spec = tiny_run(tiny_teacher, corpus_file, search={"episodes": 1, "candidates": 2, "keep_weights": "all"})
    remember_latencies(spec)
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "spec.json").write_text(spec.to_json())
    db = folder / "runs.db"
    assert call("search", "--spec", folder / "spec.json", "--db", db, "--json").code == 0
    return db, call("distill", 1, "--epochs", 1, "--set", "sequence_length=16", "--db", db, "--json")


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with students and scorings in every state; no test may change it."""
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    fill(path, students=True)
    return path


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """A copy of the store, which a test may change."""
    return shutil.copytree(filled_once.parent, tmp_path / "filled") / "runs.db"


# --- the real thing ---------------------------------------------------------------------------------------


def test_distill_prints_its_student_and_shows_its_progress_on_stderr(distilled: tuple[Path, Called]) -> None:
    db, called = distilled
    printed = called.json
    assert set(printed) == {"student", "state", "path", "seconds", "loss", "notes"}
    assert (printed["student"], printed["state"]) == ("s1", "finished")
    assert 0 < printed["loss"] < 2
    assert (Path(printed["path"]) / "model.safetensors").is_file()
    with opened(db, read_only=True) as store:
        steps = store.student(1).steps
    assert f"{steps}/{steps}" in called.err


@pytest.mark.slow
def test_a_distilled_student_is_scored_made_task_specific_and_exported(
    distilled: tuple[Path, Called], task: Path, folder: Path
) -> None:
    db, _ = distilled
    small = ["--seeds", 2, "--db", db, "--json"]
    printed = call("evaluate", "s1", "--task", task, "--control", *small).json
    assert set(printed) == {"state", "scores", *AVERAGES}
    (row,) = printed["scores"]
    assert set(row) == SCORE
    assert row["metric"] == "accuracy"
    assert row["retained"] == pytest.approx(row["student"] / row["teacher"])
    assert (printed["average"], printed["retained"]) == pytest.approx((row["student"], row["retained"]))

    how = ["--task", task, "--epochs", 1, "--set", "augment=false"]
    made = call("distill", "s1", *how, "--db", db, "--json").json
    assert made["student"] == "s2"
    for name in ("1", "s1", "s2"):
        exported = call("export", name, f"exported-{name}", "--db", db, "--json").json
        assert exported["verified"] is True
        assert "checkpoint.safetensors" not in exported["files"]
    shown = call("show", "s1", "--db", db, "--json").json
    assert shown["scores"] == printed["scores"]
    assert call("show", "s2", "--db", db, "--json").json["parent"] == "s1"


# --- what is printed --------------------------------------------------------------------------------------


def test_students_lists_all_with_their_size(filled_once: Path) -> None:
    printed = call("students", "--db", filled_once, "--json").json
    assert set(printed) == {"students"}
    rows = printed["students"]
    assert [row["student"] for row in rows] == ["s5", "s4", "s3", "s2", "s1"]
    for row in rows:
        assert set(row) == STUDENT
    states = {row["student"]: row["state"] for row in rows}
    assert states == {"s1": "finished", "s2": "finished", "s3": "running", "s4": "paused", "s5": "failed"}
    assert rows[-1]["bytes"] > 5_000_000
    assert rows[2]["seconds_left"] > 0
    lines = call("students", "--db", filled_once).out.splitlines()
    assert len(lines) == 5
    assert "5.0 MB" in lines[-1]
    assert "loss 0.2000" in lines[-1]


def test_show_prints_a_student_with_its_scores(filled: Path) -> None:
    printed = call("show", "s1", "--db", filled, "--json").json
    assert set(printed) == {*STUDENT, *AVERAGES, "scores"}
    assert [(row["task"], row["metric"]) for row in printed["scores"]] == [
        ("packaged", "accuracy"),
        ("sst2", "accuracy"),
        ("mrpc", "accuracy"),
        ("mrpc", "f1"),
    ]
    lines = call("show", "s1", "--db", filled).out
    assert "average" in lines
    assert "Its embeddings were trained for 600 words." in lines
    assert call("show", "s5", "--db", filled, "--json").json["scores"] == []


def test_every_command_that_changes_a_student_prints_its_state(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launch, "ensure_worker", started.append)
    for command, state in (
        ("resume", "queued"),
        ("pause", "paused"),
        ("stop", "stopped"),
        ("delete", "deleted"),
    ):
        printed = call(command, "s4", "--db", filled, "--json").json
        assert printed == {"student": "s4", "state": state}
    assert started == [filled]
    assert call("stop", "s5", "--db", filled).code == 2


def test_pausing_a_running_student_waits_until_it_has_obeyed(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def obeys(seconds: float) -> None:
        with opened(filled) as store:
            assert store.student(3).request == "pause"
            store.end(Job("students", 3), "paused")

    monkeypatch.setattr("kdnas_core.cli.base.time.sleep", obeys)
    assert call("pause", "s3", "--db", filled, "--json").json == {"student": "s3", "state": "paused"}


# --- exit codes and refusals ------------------------------------------------------------------------------


@pytest.fixture
def can_all_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all checks of teachers, corpora and tasks pass."""
    monkeypatch.setattr(student_journals, "check_distillation", lambda *given: None)
    monkeypatch.setattr(student_journals, "check_evaluation", lambda *given: None)


def weighty(db: Path) -> int:
    """A candidate with weights."""
    with opened(db) as store:
        candidate = next(row for row in store.candidates(1) if row.state == "done")
        (store.files(1, candidate.id) / "model.safetensors").write_bytes(b"weights")
    return candidate.id


def test_a_student_for_a_retrieval_task_is_refused_before_anything_is_written(filled: Path) -> None:
    candidate = weighty(filled)
    before = files_in(filled.parent)
    done = call("distill", candidate, "--task", "packaged-retrieval", "--db", filled)
    assert "Nothing can be learnt from packaged-retrieval" in refused(done)
    assert files_in(filled.parent) == before


@pytest.mark.usefixtures("can_all_be_done")
def test_what_fails_on_the_way_exits_with_1_and_says_why(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(student_journals, "distil_fully", fails)
    monkeypatch.setattr(student_journals, "score_models", fails)
    candidate = weighty(filled)
    for arguments in (["distill", candidate], ["evaluate", candidate, "--task", "packaged"]):
        called = call(*arguments, "--db", filled, "--json")
        assert called.code == 1
        assert json.loads(called.out)["state"] == "failed"
        assert called.err.splitlines()[-1] == "OSError: no space left on device"


@pytest.mark.usefixtures("can_all_be_done")
def test_ctrl_c_exits_with_130_and_leaves_what_can_be_resumed(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(student_journals, "distil_fully", interrupted)
    called = call("distill", weighty(filled), "--db", filled, "--json")
    assert (called.code, called.out) == (130, "")
    with opened(filled) as store:
        assert store.students()[0].state == "interrupted"
        assert store.resume(store.students()[0].job) == "queued"


@pytest.mark.usefixtures("can_all_be_done")
def test_the_options_and_settings_are_what_is_asked_for(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distilled, scored = [], []
    monkeypatch.setattr(student_journals, "distil_fully", lambda spec, how, *more: distilled.append(how))
    monkeypatch.setattr(student_journals, "score_models", lambda spec, how, *more: scored.append(how))
    candidate = weighty(filled)
    options = ["--epochs", 0.5, "--recipe", "tinybert", "--corpus", "a.txt", "--seed", 7]
    call("distill", candidate, *options, "--set", "batch_size=8", "--set", "seed=9", "--db", filled)
    assert distilled == [DistilSpec(epochs=0.5, recipe="tinybert", corpus="a.txt", seed=7, batch_size=8)]
    options = ["--seeds", 2, "--rows", 99, "--split", "test", "--train-language", "de", "--control"]
    call("evaluate", candidate, "--task", "packaged", "--task", "x", *options, "--db", filled)
    call("evaluate", candidate, "--set", 'tasks=["y"]', "--db", filled)
    assert scored == [
        ScoreSpec(tasks=["packaged", "x"], seeds=2, rows=99, split="test", train_language="de", control=True),
        ScoreSpec(tasks=["y"]),
    ]


@pytest.mark.usefixtures("can_all_be_done")
def test_several_candidates_are_distilled_one_after_another(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def distilled(spec: Any, how: Any, architecture: Architecture, *rest: Any) -> FullResult:
        shapes.append(architecture)
        return FullResult(0.25, {}, None, ())

    monkeypatch.setattr(student_journals, "distil_fully", distilled)
    with opened(filled) as store:
        candidates = [row for row in store.candidates(1) if row.state == "done"][:3]
    called = call("distill", *(row.id for row in candidates), "--db", filled, "--json")
    assert called.code == 0
    assert shapes == [row.architecture for row in candidates]
    assert [made["state"] for made in called.json["students"]] == ["finished"] * 3
    assert len({made["student"] for made in called.json["students"]}) == 3


@pytest.mark.usefixtures("can_all_be_done")
def test_of_several_candidates_none_is_begun_where_one_cannot_be(filled: Path) -> None:
    candidate = weighty(filled)
    before = files_in(filled.parent)
    called = call("distill", candidate, 99, "--db", filled)
    assert called.code == 2
    assert "There is no candidate 99" in called.err
    assert files_in(filled.parent) == before


@pytest.mark.usefixtures("can_all_be_done")
def test_after_one_that_fails_the_others_are_not_begun(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> None:
        raise Diverged("the loss was nan at step 3")

    monkeypatch.setattr(student_journals, "distil_fully", failing)
    candidate = weighty(filled)
    called = call("distill", candidate, candidate, "--db", filled, "--json")
    assert called.code == 1
    assert [made["state"] for made in json.loads(called.out)["students"]] == ["failed"]
    assert f"Not begun: {candidate}." in called.err


def test_a_device_that_this_machine_lacks_is_refused_before_anything_is_written(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    candidate = weighty(filled)
    before = files_in(filled.parent)
    for arguments in (["distill", candidate], ["evaluate", candidate, "--task", "packaged"]):
        assert "cuda device" in refused(call(*arguments, "--set", "device=cuda", "--db", filled))
    assert files_in(filled.parent) == before


@pytest.mark.usefixtures("can_all_be_done")
def test_check_alone_does_nothing(filled: Path) -> None:
    candidate = weighty(filled)
    before = files_in(filled.parent)
    for arguments in (["distill", candidate], ["evaluate", candidate, "--task", "packaged"]):
        called = call(*arguments, "--check", "--db", filled)
        assert (called.code, called.out) == (0, "")
    assert files_in(filled.parent) == before


@pytest.mark.usefixtures("can_all_be_done")
def test_a_candidate_over_budget_is_distilled_with_a_note(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(filled) as store:
        over = next(row.id for row in store.candidates(1) if row.state == "over_budget")
    called = call("distill", over, "--check", "--db", filled)
    assert called.code == 0
    assert called.err == f"Candidate {over} is over the latency budget of its run.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["distill", 99], "There is no candidate 99"),
        (["distill", "s99"], "There is no student s99"),
        (["distill", "x3"], "names no candidate and no student"),
        (["distill", "s1"], "is distilled already"),
        (["distill", "s4", "--task", "packaged"], "has no weights yet"),
        (["distill", 1, "--epochs", -1], "epochs"),
        (["distill", 1, "--epochs", "nan"], "epochs"),
        (["distill", 1, "--epochs", "many"], "epochs"),
        (["distill", 1, "--recipe", "alchemy"], "recipe"),
        (["distill", 1, "--set", "colour=blue"], "'colour' is not a field"),
        (["distill", 1, "--set", "batch_size"], "is not a setting"),
        (["distill"], "Missing"),
        (["evaluate", 99, "--task", "packaged"], "There is no candidate 99"),
        (["evaluate", "s99", "--task", "packaged"], "There is no student s99"),
        (["evaluate", "x3", "--task", "packaged"], "names no candidate and no student"),
        (["evaluate", "s3", "--task", "packaged"], "has no weights yet"),
        (["evaluate", 1], "Name a task"),
        (["evaluate", 1, "--task", ""], "tasks"),
        (["evaluate", 1, "--task", "packaged", "--seeds", 0], "seeds"),
        (["evaluate", 1, "--task", "packaged", "--rows", 1], "rows"),
        (["evaluate", 1, "--task", "packaged", "--split", ""], "split"),
        (["export", "s3", "exported"], "has no weights yet"),
        (["export", "s99", "exported"], "There is no student s99"),
        (["export", "x3", "exported"], "names no candidate and no student"),
        (["show", "s99"], "There is no student s99"),
        (["show", "x3"], "names no run and no student"),
        (["pause", "s1"], "only a student that is not over can pause"),
        (["resume", "s1"], "nothing left to resume"),
        (["stop", "s99"], "There is no student s99"),
        (["delete", "s3"], "stop it before you delete it"),
        (["delete", "s1x"], "names no run and no student"),
        (["delete", 1], "which is running; stop that first"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    folder: Path, filled_once: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], says: str
) -> None:
    monkeypatch.setenv("KDNAS_DB", str(filled_once))
    before = files_in(filled_once.parent)
    assert says in refused(call(*arguments))
    assert files_in(filled_once.parent) == before
    assert files_in(folder) == {}


def test_a_candidate_without_weights_is_to_be_distilled_in_full_first(filled: Path) -> None:
    with opened(filled) as store:
        dropped = next(row.id for row in store.candidates(1) if row.state == "done")
        store.update_candidate(dropped, weights=0)
    for arguments in (
        ["evaluate", dropped, "--task", "packaged"],
        ["distill", dropped, "--task", "packaged"],
        ["export", dropped, "exported"],
    ):
        assert f"distil it in full first: `distill {dropped}`" in refused(call(*arguments, "--db", filled))


def test_a_task_or_corpus_that_is_not_there_is_refused_before_anything_is_written(
    distilled: tuple[Path, Called],
) -> None:
    db, _ = distilled
    before = files_in(db.parent)
    assert "nowhere" in refused(call("distill", 1, "--corpus", "nowhere.txt", "--db", db))
    assert "nowhere" in refused(call("evaluate", 1, "--task", "nowhere", "--db", db))
    assert "nowhere" in refused(call("distill", 1, "--task", "nowhere", "--db", db))
    assert files_in(db.parent) == before


@pytest.mark.parametrize("command", ["distill", "evaluate", "students"])
def test_a_store_that_does_not_exist_is_not_made_by_asking_for_it(folder: Path, command: str) -> None:
    arguments: dict[str, list[object]] = {"distill": [1], "evaluate": [1, "--task", "packaged"]}
    assert "There is no runs.db" in refused(call(command, *arguments.get(command, [])))
    assert list(folder.iterdir()) == []
