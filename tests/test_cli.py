from __future__ import annotations

import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from kdnas_core.cli import search
from kdnas_core.hardware import chosen_device
from kdnas_core.runs import launch
from kdnas_core.runs.jobs import Worker
from kdnas_core.runs.records import CandidateState
from kdnas_core.runs.store import opened
from kdnas_core.spec import LatencySpec, RunSpec, quick_spec
from tests.filled_store import fill
from tests.tiny_runs import files_in, own_machine, remember_latencies, tiny_run, wait_for

SUMMARY = {
    "run",
    "state",
    "candidates",
    "over_budget",
    "pruned",
    "failed",
    "seconds",
    "teacher_latency_ms",
    "frontier",
}
CANDIDATE = {
    "id",
    "episode",
    "state",
    "architecture",
    "parameters",
    "flops",
    "latency_ms",
    "speedup",
    "estimated_ms",
    "loss",
    "loss_se",
    "rung",
    "reward",
    "predicted_reward",
    "scores",
    "seconds",
    "error",
    "notes",
    "languages",
    "cut_from",
}
ARCHITECTURE = {"layers", "hidden_size", "intermediate_size", "attention_heads", "hidden_act"}


@dataclass(frozen=True)
class Called:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout, parsed strictly."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        found = json.loads(self.out, parse_constant=_not_json)
        assert isinstance(found, dict)
        return found


def _not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def call(*arguments: object) -> Called:
    """Calls the command line in this process, as `python -m kdnas_core` does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["kdnas_core", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            search.main()
    assert isinstance(ended.value.code, int)
    return Called(ended.value.code, out.getvalue(), err.getvalue())


def call_process(*arguments: object, **environment: str) -> Called:
    """Calls the command line in a separate process."""
    child = subprocess.run(
        [sys.executable, "-m", "kdnas_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )
    return Called(child.returncode, child.stdout, child.stderr)


def refused(called: Called) -> str:
    """Returns the one sentence with which a command refused its input."""
    assert called.code == 2, called.err
    assert called.out == ""
    assert "Traceback" not in called.err
    *before, sentence = called.err.splitlines()
    assert all(line.endswith(" ...") for line in before), f"more than what it was doing: {before}"
    assert sentence.endswith("."), sentence
    return sentence


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
def spec(tiny_teacher: Path, corpus_file: Path, machine: None) -> RunSpec:
    spec = tiny_run(tiny_teacher, corpus_file)
    remember_latencies(spec)
    return spec


@pytest.fixture
def spec_file(tmp_path: Path, spec: RunSpec) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(spec.to_json())
    return path


@pytest.fixture(scope="module")
def searched(
    spec: RunSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[str]]:
    """A store with one real finished run, what `search --json` printed, and its stderr."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "spec.json").write_text(spec.to_json())
    called = call("search", "--spec", folder / "spec.json", "--db", folder / "runs.db", "--json")
    return folder / "runs.db", called.json, called.err.splitlines()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run of 16 candidates as a worker would have written it."""
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    fill(path)
    return path


# --- what --json prints -----------------------------------------------------------------------------------


def assert_is_candidate(candidate: dict[str, Any]) -> None:
    assert set(candidate) == CANDIDATE
    assert set(candidate["architecture"]) == ARCHITECTURE
    if candidate["latency_ms"] is not None:
        assert set(candidate["latency_ms"]) == {"p50", "p95", "n"}
        assert candidate["latency_ms"]["n"] >= 100
        assert candidate["speedup"] > 0


def test_search_prints_its_summary_and_shows_its_progress_on_stderr(
    searched: tuple[Path, dict[str, Any], list[str]],
) -> None:
    _, summary, err = searched
    assert set(summary) == SUMMARY
    assert (summary["run"], summary["state"], summary["candidates"]) == (1, "finished", 6)
    assert summary["over_budget"] == summary["failed"] == 0
    assert summary["seconds"] > 0
    assert summary["teacher_latency_ms"] > 0
    assert summary["frontier"]
    for candidate in summary["frontier"]:
        assert_is_candidate(candidate)
        assert candidate["state"] == "done"
    latencies = [candidate["latency_ms"]["p50"] for candidate in summary["frontier"]]
    losses = [candidate["loss"] for candidate in summary["frontier"]]
    assert latencies == sorted(latencies)
    assert losses == sorted(losses, reverse=True)
    assert "loading the teacher ..." in err
    assert any("6/6" in line for line in err)


def test_extend_goes_on_with_all_that_a_search_knows_and_refuses_what_would_not_compare(
    searched: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    db = tmp_path / "more.db"
    with closing(sqlite3.connect(searched[0])) as whole:
        whole.execute("VACUUM INTO ?", [str(db)])
    before = call("show", 1, "--json", "--db", db).json["candidates"]
    assert "cannot change proxy.steps" in refused(call("extend", 1, "--set", "proxy.steps=9", "--db", db))
    assert "There is no run 7" in refused(call("extend", 7, "--db", db))
    assert call("show", 1, "--json", "--db", db).json["candidates"] == before
    called = call("extend", 1, "--episodes", 1, "--set", "space.layers=[1,2,3]", "--json", "--db", db)
    summary = called.json
    assert set(summary) == SUMMARY
    assert (summary["run"], summary["state"], summary["candidates"]) == (1, "finished", 9)
    after = call("show", 1, "--json", "--db", db).json["candidates"]
    # weights and scores aside, which have no key here, what was judged stays as it was
    assert after[:6] == before
    assert {row["episode"] for row in after[6:]} == {3}
    shown = call("show", 1, "--json", "--db", db).json["run"]
    assert shown["outlook"]["episode"] == shown["episode"] == shown["episodes"] == 3


def test_runs_prints_all_runs(searched: tuple[Path, dict[str, Any], list[str]]) -> None:
    printed = call("runs", "--json", "--db", searched[0]).json
    assert set(printed) == {"runs"}
    (run,) = printed["runs"]
    assert (run["id"], run["name"], run["state"], run["episode"]) == (1, "tiny", "finished", 2)


def test_show_prints_the_run_the_spec_and_every_candidate(
    searched: tuple[Path, dict[str, Any], list[str]], spec: RunSpec
) -> None:
    printed = call("show", 1, "--json", "--db", searched[0]).json
    assert set(printed) == {"run", "spec", "candidates"}
    filled = spec.filled_for(makes_vectors=False).with_static(can_be=False)
    filled = filled.model_copy(update={"device": chosen_device("auto")})
    assert RunSpec.model_validate(printed["spec"]) == filled
    assert len(printed["candidates"]) == 6
    for candidate in printed["candidates"]:
        assert_is_candidate(candidate)
    best = {candidate["id"]: candidate for candidate in searched[1]["frontier"]}
    assert {row["id"]: row for row in printed["candidates"] if row["id"] in best} == best


def test_show_has_the_keys_of_the_contract_for_candidates_in_every_state(filled: Path) -> None:
    with opened(filled) as store:
        run = store.create_run(quick_spec())
        store.begin_episode(run, 1, [(row.architecture, None) for row in store.candidates(1)[:6]])
        for candidate, state in zip(store.candidates(run), get_args(CandidateState), strict=True):
            store.update_candidate(candidate.id, state=state)
    for candidate in call("show", run, "--json", "--db", filled).json["candidates"]:
        assert_is_candidate(candidate)


def test_a_candidate_is_printed_with_its_standard_error_and_what_it_was_cut_from(filled: Path) -> None:
    rows = call("show", 1, "--json", "--db", filled).json["candidates"]
    for row in rows:
        judged = row["state"] == "done"
        assert row["loss_se"] == (0.006 if judged else None)
        assert len(row["cut_from"]) == (row["architecture"]["layers"] if judged else 0)
        assert all(set(source) == {"layer", "heads"} for source in row["cut_from"])
    assert any(row["cut_from"] for row in rows)


def test_a_value_that_is_not_finite_does_not_break_the_json(tmp_path: Path) -> None:
    fill(tmp_path / "odd.db", episodes=1)
    with opened(tmp_path / "odd.db") as store:
        store.update_candidate(1, loss=float("inf"), reward=float("-inf"), predicted_reward=float("nan"))
    assert call("show", 1, "--json", "--db", tmp_path / "odd.db").json["candidates"][0]["id"] == 1


def test_every_command_that_changes_a_run_prints_its_state(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launch, "ensure_worker", started.append)
    with opened(folder / "runs.db") as store:
        run = store.create_run(quick_spec())
    for command, state in (
        ("pause", "paused"),
        ("resume", "queued"),
        ("stop", "stopped"),
        ("resume", "queued"),
        ("delete", "deleted"),
    ):
        assert call(command, run, "--json").json == {"run": run, "state": state}
    assert started == [Path("runs.db")] * 2
    assert call("runs", "--json").json == {"runs": []}


def test_without_json_each_command_prints_lines_for_people(
    searched: tuple[Path, dict[str, Any], list[str]],
) -> None:
    for arguments in (["runs"], ["show", 1], ["pick", 1, "--speedup", 0.1]):
        called = call(*arguments, "--db", searched[0])
        assert called.code == 0
        assert called.out.strip()
        assert not called.out.startswith("{")


@pytest.mark.parametrize("path", ["named.db", "deep/named.db"])
def test_the_store_is_named_by_the_option_or_else_by_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (folder / "deep").mkdir()
    for name, count in ((path, 1), ("runs.db", 2), ("environment.db", 3)):
        with opened(Path(name)) as store:
            for _ in range(count):
                store.create_run(quick_spec())
    assert len(call("runs", "--json", "--db", path).json["runs"]) == 1
    assert len(call("runs", "--json").json["runs"]) == 2
    monkeypatch.setenv("KDNAS_DB", "environment.db")
    assert len(call("runs", "--json").json["runs"]) == 3
    assert len(call("runs", "--json", "--db", path).json["runs"]) == 1


def test_reading_commands_leave_the_store_as_it_is(filled: Path) -> None:
    before = files_in(filled.parent)
    for arguments in (["runs"], ["show", 1], ["pick", 1, "--budget-ms", 3]):
        assert call(*arguments, "--db", filled, "--json").code == 0
    assert files_in(filled.parent) == before


# --- picking ----------------------------------------------------------------------------------------------


def test_pick_takes_the_best_within_the_budget_and_never_one_over_it(filled: Path) -> None:
    with opened(filled, read_only=True) as store:
        done = [row for row in store.candidates(1) if row.state == "done" and row.latency]
    for budget in (1.0, 2.0, 3.0, 5.0, 8.0, 1000.0):
        picked = call("pick", 1, "--budget-ms", budget, "--db", filled, "--json").json["candidate"]
        within = [row for row in done if row.latency and row.latency.p50 <= budget]
        if not within:
            assert picked is None
            continue
        assert_is_candidate(picked)
        assert picked["latency_ms"]["p50"] <= budget
        assert picked["loss"] == min(row.loss for row in within if row.loss is not None)


def test_a_speedup_is_a_budget_too(filled: Path) -> None:
    for speedup in (1.0, 3.0, 6.0):
        picked = call("pick", 1, "--speedup", speedup, "--db", filled, "--json").json["candidate"]
        assert picked is None or picked["speedup"] >= speedup
    assert call("pick", 1, "--speedup", 1, "--db", filled, "--json").json["candidate"] is not None


def test_the_edge_of_a_budget_is_within_it(filled: Path) -> None:
    picked = call("pick", 1, "--budget-ms", 1000, "--db", filled, "--json").json["candidate"]
    edge = picked["latency_ms"]["p50"]
    again = call("pick", 1, "--budget-ms", repr(edge), "--db", filled, "--json").json["candidate"]
    assert again["id"] == picked["id"]


def test_pick_where_nothing_fits_gives_null_and_is_no_error(filled: Path) -> None:
    called = call("pick", 1, "--budget-ms", 0.0001, "--db", filled, "--json")
    assert called.json == {"candidate": None, "tied": []}


def test_without_a_budget_the_picks_for_each_of_the_runs_own_are_shown(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    spec = RunSpec(latency=LatencySpec(budget_speedup=[1.5, 3.0, 1000.0]))
    fill(db, spec=spec)
    found = call("pick", 1, "--db", db, "--json").json["picks"]
    assert [each["budget_speedup"] for each in found] == [1.5, 3.0, 1000.0]
    for each, speedup in zip(found[:2], (1.5, 3.0), strict=True):
        picked = call("pick", 1, "--speedup", speedup, "--db", db, "--json").json["candidate"]
        assert each["candidate"] == picked
    assert found[2]["candidate"] is None
    lines = call("pick", 1, "--db", db).out.splitlines()
    assert "ahead of" in lines[0]
    assert lines[2].split(maxsplit=1) == ["1000x", "no candidate is within the budget"]


# --- exit codes -------------------------------------------------------------------------------------------


def test_a_search_that_fails_exits_with_1_and_still_prints_its_summary(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("kdnas_core.runs.worker.make_judge", broken)
    called = call("search", "--spec", spec_file, "--json")
    assert called.code == 1
    assert json.loads(called.out)["state"] == "failed"
    assert "no space left on device" in called.err.splitlines()[-1]


def test_help_exits_with_0() -> None:
    called = call("--help")
    assert called.code == 0
    for command in (
        "search",
        "extend",
        "runs",
        "show",
        "pick",
        "distill",
        "evaluate",
        "students",
        "export",
        "worker",
        "pause",
        "resume",
        "stop",
        "delete",
    ):
        assert command in called.out
        assert call(command, "--help").code == 0


def test_without_a_command_the_commands_are_shown() -> None:
    called = call()
    assert called.code in (0, 2)
    assert "Traceback" not in called.err
    for command in ("search", "runs", "export"):
        assert command in called.out + called.err


def test_an_interrupt_before_anything_began_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "_chosen_spec", interrupted)
    called = call("search")
    assert (called.code, called.out) == (130, "")
    assert called.err == "Interrupted.\n"


@pytest.mark.slow
def test_ctrl_c_during_a_search_exits_with_130_and_the_run_goes_on_later(
    folder: Path, spec_file: Path, spec: RunSpec
) -> None:
    arguments = ["search", "--spec", str(spec_file), "--set", "proxy.steps=300", "--json"]
    searching = subprocess.Popen(
        [sys.executable, "-m", "kdnas_core", *arguments],
        stdout=subprocess.PIPE,
        stderr=(folder.parent / "err.txt").open("w"),
        text=True,
        # a suite that a shell runs in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def in_hand() -> bool:
        if not (folder / "runs.db").exists():
            return False
        with closing(sqlite3.connect("file:runs.db?mode=ro", uri=True)) as db:
            try:
                return bool(db.execute("SELECT 1 FROM candidates WHERE state = 'distilling'").fetchall())
            except sqlite3.OperationalError:
                return False

    try:
        wait_for(in_hand)
        searching.send_signal(signal.SIGINT)
        out, _ = searching.communicate(timeout=60)
    finally:
        searching.kill()
    err = (folder.parent / "err.txt").read_text()
    assert searching.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "Interrupted."
    (run,) = call("runs", "--json").json["runs"]
    assert run["state"] == "interrupted"
    with opened(folder / "runs.db") as store:
        assert store.resume(run["id"]) == "queued"
        assert store.claim_run(Worker.this_process()) is not None


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["space.layers=[]"], "space.layers"),
        (["space.layers=[0]"], "space.layers"),
        (["space.hidden_size=[16]", "space.attention_heads=[5]"], "attention heads divide none"),
        (["space.attention_heads=[2,5]"], "5 attention heads divide none"),
        (["space=everything"], "space"),
        (["latency.budget_ms=0.00001"], "below every student"),
        (["latency.budget_speedup=1000000"], "below every student"),
        (["latency.budget_ms=0"], "latency.budget_ms"),
        (["latency.budget_ms=-1"], "latency.budget_ms"),
        (["latency.budget_ms=NaN"], "latency.budget_ms"),
        (["latency.budget_ms=soon"], "latency.budget_ms"),
        (["latency.sequence_length=512"], "latency.sequence_length"),
        (["proxy.sequence_length=512"], "proxy.sequence_length"),
        (["proxy.steps=0"], "proxy.steps"),
        (["proxy.learning_rate=Infinity"], "proxy.learning_rate"),
        (["latency.runs=1"], "latency.runs"),
        (["objective.recipe=alchemy"], "objective.recipe"),
        (["search.controller=oracle"], "search.controller"),
        (["seed=-1"], "seed"),
        (["seed=1.5"], "seed"),
        (["colour=blue"], "'colour' is not a field"),
        (["proxy.stepz=3"], "'proxy.stepz' is not a field"),
        (["proxy.steps.more=3"], "has no fields"),
        (["proxy.steps"], "is not a setting"),
        (["=3"], "is not a setting"),
        (["search.reward.mode=accuracy"], "tasks"),
        (['tasks=["sst2"]'], "no folder 'sst2'"),
    ],
)
def test_a_setting_that_cannot_be_searched_is_refused(
    folder: Path, spec_file: Path, settings: list[str], says: str
) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    assert says in refused(call("search", "--spec", spec_file, *given, "--json"))
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"", "is empty"),
        ("binary.txt", bytes(range(256)) * 10, "is binary"),
        ("latin.txt", "café\n".encode("latin-1") * 100, "not UTF-8"),
        ("blank.txt", b"\n \n" * 100, "holds no text"),
        ("few.txt", b"one\ntwo\nthree\n", "only 3 different texts"),
        ("same.txt", b"the same\n" * 1000, "only 1 different texts"),
        ("table.csv", b"a,b\nx,y\n", "no column"),
        ("lines.jsonl", b"not json\n", "line 1"),
        ("not.parquet", b"text\n" * 10, "not a Parquet file"),
        ("word.docx", b"text\n" * 100, "ending"),
        ("hub:", None, "hub"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_refused(
    folder: Path, tmp_path: Path, spec_file: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    corpus = name if name.startswith("hub:") else tmp_path / name
    sentence = refused(call("search", "--spec", spec_file, "--set", f"corpus={corpus}", "--json"))
    assert says in sentence
    assert files_in(folder) == {}


def _without_weights(teacher: Path) -> None:
    (teacher / "model.safetensors").unlink()


def _pickle_only(teacher: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "pytorch_model.bin")


def _without_config(teacher: Path) -> None:
    (teacher / "config.json").unlink()


def _another_family(teacher: Path) -> None:
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))


def _half_the_weights(teacher: Path) -> None:
    weights = teacher / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _config_not_json(teacher: Path) -> None:
    (teacher / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_without_weights, "no weights"),
        (_pickle_only, "pickle"),
        (_without_config, "no config.json"),
        (_another_family, "family"),
        (_half_the_weights, "cannot be loaded"),
        (_config_not_json, "not a JSON object"),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_refused(
    folder: Path,
    tmp_path: Path,
    tiny_teacher: Path,
    spec_file: Path,
    damage: Callable[[Path], None],
    says: str,
) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    for path in tiny_teacher.iterdir():
        (teacher / path.name).write_bytes(path.read_bytes())
    damage(teacher)
    assert says in refused(call("search", "--spec", spec_file, "--set", f"teacher={teacher}", "--json"))
    assert files_in(folder) == {}


@pytest.mark.parametrize("teacher", ["no/such/folder/here", "./nowhere", "a b c"])
def test_a_teacher_that_is_neither_a_folder_nor_a_hub_id_is_refused(spec_file: Path, teacher: str) -> None:
    assert "There is no folder" in refused(call("search", "--spec", spec_file, "--set", f"teacher={teacher}"))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["teacher=google-bert/bert-base-uncased", "corpus=hub:stanfordnlp/imdb"])
def test_the_hub_without_a_network_is_refused_with_what_works_without_one(
    folder: Path, tmp_path: Path, spec_file: Path, setting: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        called = call_process(
            "search",
            "--spec",
            spec_file,
            "--set",
            setting,
            "--json",
            HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}",
            HF_HOME=str(tmp_path / "hub"),
        )
    assert "Traceback" not in called.err
    sentence = refused(Called(called.code, called.out, _without_progress(called.err)))
    assert "network" in sentence
    assert "packaged" in sentence
    assert files_in(folder) == {}


def _without_progress(err: str) -> str:
    """Keeps only the lines of activities and the last sentence of stderr."""
    *before, sentence = err.splitlines()
    return "\n".join([*(line for line in before if line.endswith(" ...")), sentence])


def _not_a_database(path: Path) -> None:
    path.write_text("name,loss\n" * 1000)


def _newer(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('kdnas', '99_later')")


def _another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE runs (distance REAL)")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--json"],
        ["runs", "--json"],
        ["show", 1],
        ["pick", 1, "--budget-ms", 3],
        ["export", 1, "exported"],
        ["distill", 1],
        ["evaluate", 1, "--task", "packaged"],
        ["students"],
        ["pause", 1],
        ["resume", 1],
        ["extend", 1],
        ["stop", 1],
        ["delete", 1],
        ["worker", "--until-idle"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    ("make", "says"),
    [(_not_a_database, "not a database"), (_newer, "newer version"), (_another_programs, "another program")],
)
def test_a_store_that_is_not_ours_is_refused_by_every_command(
    folder: Path, spec_file: Path, make: Callable[[Path], None], says: str, arguments: list[object]
) -> None:
    make(folder / "runs.db")
    before = files_in(folder)
    given = ["--spec", spec_file] if arguments[0] == "search" else []
    assert says in refused(call(*arguments, *given))
    assert files_in(folder) == before


@pytest.mark.parametrize(
    "command", ["runs", "show", "pick", "export", "pause", "resume", "stop", "delete", "extend"]
)
def test_a_store_that_does_not_exist_is_not_made_by_asking_for_it(folder: Path, command: str) -> None:
    more = {"runs": [], "pick": [1, "--budget-ms", 3], "export": [1, "exported"]}.get(command, [1])
    assert "There is no runs.db" in refused(call(command, *more))
    assert list(folder.iterdir()) == []


def test_an_empty_file_is_no_store_to_read_from(folder: Path) -> None:
    """A first start that is killed before it creates the tables leaves such a file."""
    (folder / "runs.db").touch()
    called = call("runs", "--json")
    assert called.code in (0, 2)


@pytest.mark.parametrize("db", [".", "missing/runs.db"])
def test_a_search_refuses_a_store_that_cannot_be_made(folder: Path, spec_file: Path, db: str) -> None:
    refused(call("search", "--spec", spec_file, "--db", db))
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", 77], "There is no run 77"),
        (["pick", 77, "--budget-ms", 3], "There is no run 77"),
        (["pause", 77], "There is no run 77"),
        (["resume", 77], "There is no run 77"),
        (["stop", 77], "There is no run 77"),
        (["delete", 77], "There is no run 77"),
        (["export", 7777, "exported"], "There is no candidate 7777"),
        (["resume", 1], "nothing left to resume"),
        (["pause", 1], "only a run that is not over"),
        (["pick", 1, "--budget-ms", 3, "--speedup", 2], "not both"),
        (["pick", 1, "--budget-ms", -3], "budget_ms"),
        (["pick", 1, "--budget-ms", "nan"], "budget_ms"),
        (["pick", 1, "--speedup", 0], "budget_speedup"),
        (["export", 1, "exported", "--format", "pickle"], "format"),
        (["worker", "--engine", "steam"], "engine"),
        # what Typer finds is wrong
        (["pick", 1, "--budget-ms", "three"], "budget-ms"),
        (["show", "first"], "'first' names no run and no student"),
        (["show"], "Missing"),
        (["shw", 1], "shw"),
        (["runs", "--colour"], "--colour"),
        (["search", "--seed", "x"], "seed"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_command_that_makes_no_sense_is_refused(
    folder: Path, filled: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], says: str
) -> None:
    monkeypatch.setenv("KDNAS_DB", str(filled))
    before = files_in(filled.parent)
    assert says in refused(call(*arguments))
    assert files_in(filled.parent) == before
    assert files_in(folder) == {}


def test_a_running_run_is_not_deleted(folder: Path) -> None:
    fill(folder / "runs.db", episodes=1, state="running")
    assert "stop it before" in refused(call("delete", 1))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"", "not JSON"),
        (b'{"seed": NaN}', "seed"),
        (b'{"latency": {"budget_ms": 1, "budget_speedup": 2}}', "not both"),
        (b'{"latency": 3}', "latency"),
    ],
)
def test_a_spec_that_cannot_be_read_is_refused(
    folder: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "given.json"
    if content is not None:
        path.write_bytes(content)
    assert says in refused(call("search", "--spec", path))
    assert files_in(folder) == {}


def test_a_spec_file_and_quick_exclude_each_other(spec_file: Path) -> None:
    assert "not both" in refused(call("search", "--quick", "--spec", spec_file))


def test_check_refuses_what_search_refuses_and_writes_nothing(folder: Path, spec_file: Path) -> None:
    assert call("check", "--spec", spec_file).code == 0
    assert "'colour'" in refused(call("check", "--spec", spec_file, "--set", "colour=blue"))
    assert files_in(folder) == {}


@pytest.mark.slow
def test_as_a_process_bad_input_is_one_sentence_and_2_and_a_help_is_0(folder: Path) -> None:
    """Runs a real process once; the tests above call the same function."""
    called = call_process("search", "--set", "colour=blue", "--json")
    assert "'colour' is not a field" in refused(called)
    assert call_process("--help").code == 0
    assert files_in(folder) == {}


# --- the same again ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_spec_and_seed_give_the_same_students_in_the_same_order(
    searched: tuple[Path, dict[str, Any], list[str]], spec_file: Path
) -> None:
    call("search", "--spec", spec_file, "--seed", 7, "--db", "again.db", "--json")
    first = call("show", 1, "--db", searched[0], "--json").json["candidates"]
    second = call("show", 1, "--db", "again.db", "--json").json["candidates"]
    assert [row["architecture"] for row in first] == [row["architecture"] for row in second]
    assert [row["loss"] for row in second] == pytest.approx([row["loss"] for row in first], rel=1e-3)


def test_another_seed_gives_other_students(spec_file: Path) -> None:
    # at random: in so small a space the surrogate's first episode is the same whatever the seed
    short = ["--set", "proxy.steps=1", "--set", "search.episodes=1", "--set", "search.controller=random"]
    for seed in (7, 8):
        call("search", "--spec", spec_file, "--seed", seed, *short)
    one, other = (call("show", run, "--json").json["candidates"] for run in (1, 2))
    assert [row["architecture"] for row in one] != [row["architecture"] for row in other]


def test_a_setting_beats_the_file_and_the_seed_option_beats_both(spec_file: Path) -> None:
    short = ["--set", "proxy.steps=1", "--set", "search.episodes=1", "--set", "seed=4"]
    assert call("search", "--spec", spec_file, *short, "--seed", 5, "--json").json["candidates"] == 3
    shown = call("show", 1, "--json").json["spec"]
    assert (shown["seed"], shown["proxy"]["steps"], shown["name"]) == (5, 1, "tiny")


@pytest.mark.slow
def test_a_search_that_measures_prints_nothing_else_on_stdout(
    tmp_path: Path, spec_file: Path, spec: RunSpec
) -> None:
    """Without a cache, so that exporters, runtimes and libraries can all print."""
    small = ["--set", "search.episodes=1", "--set", "search.candidates=1", "--set", "latency.budget_ms=1000"]
    called = call_process(
        "search", "--spec", spec_file, *small, "--json", KDNAS_CACHE=str(tmp_path / "another-cache")
    )
    (best,) = called.json["frontier"]
    assert_is_candidate(best)
    with opened(Path("runs.db"), read_only=True) as store:
        reading = store.candidate(best["id"]).latency
    assert reading is not None
    assert len(reading.samples) >= 100
    assert reading.p50 <= reading.p95
    assert (reading.threads, reading.batch_size, reading.sequence_length) == (1, 1, 16)
