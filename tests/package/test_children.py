from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from kdnas_core.errors import Failure
from kdnas_core.package import children
from tests.sentences import is_one_sentence
from tests.tiny_runs import wait_for

HEAD = "import json, os, sys, time\nasked = json.load(sys.stdin)\n"
TELL_PID = "with open(sys.argv[1] + '/pid', 'w') as file:\n    file.write(str(os.getpid()))\n"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def made(body: str) -> Path:
        path = tmp_path / "with_some_library.py"
        path.write_text(HEAD + body)
        return path

    return made


def test_a_clean_process_knows_nothing_of_this_project(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    path = script(
        "import importlib.util as u\n"
        "print('noise')\n"
        "ours, offline = u.find_spec('kdnas_core'), os.environ['HF_HUB_OFFLINE']\n"
        "print(json.dumps({'folder': sys.argv[1], 'asked': asked, 'ours': ours, 'offline': offline}))"
    )
    found = children.in_clean_process(path, tmp_path, {"length": 3}, lambda activity: None)
    assert found == {"folder": str(tmp_path), "asked": {"length": 3}, "ours": None, "offline": "1"}


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only")
def test_the_libraries_are_loaded_once_and_anew_after_their_process_has_ended(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        monkeypatch.setenv(f"LONG_{number}", "x" * 100_000)
    body = (
        "torch, ours = sys.modules.get('torch'), [name for name in sys.modules if 'kdnas' in name]\n"
        "print(json.dumps({'parent': os.getppid(), 'loaded': torch is not None, 'ours': ours}))"
    )
    found = [children.in_clean_process(script(body), tmp_path, {}, lambda activity: None) for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0]["loaded"], found[0]["ours"]) == (True, [])
    ended = psutil.Process(found[0]["parent"])
    with pytest.raises(Failure, match="ended with code"):
        path = script(f"{TELL_PID}os.kill(os.getppid(), 9)\ntime.sleep(600)")
        children.in_clean_process(path, tmp_path, {}, lambda activity: None)
    assert not ended.is_running()
    left = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(left))
    again = children.in_clean_process(script(body), tmp_path, {}, lambda activity: None)
    assert again["parent"] != found[0]["parent"]


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only")
def test_libraries_that_cannot_be_loaded_fail_the_check(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "server.py"
    broken.write_text("import time\ntime.sleep(0.5)\nimport a_library_that_is_not_there\n")
    monkeypatch.setattr(children, "_SERVER", broken)
    monkeypatch.setattr(children, "_servers", [])
    for _ in range(2):
        with pytest.raises(Failure, match="ended with code 1"):
            children.in_clean_process(script(""), tmp_path, {}, lambda activity: None)


def test_a_script_without_torch_has_a_process_without_it(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script("print(json.dumps({'loaded': 'torch' in sys.modules}))")
    found = children.in_clean_process(path, tmp_path, {}, lambda activity: None, needs_torch=False)
    assert found == {"loaded": False}


def test_what_a_child_does_is_told(script: Callable[[str], Path], tmp_path: Path) -> None:
    said: list[str] = []
    path = script("print('> first', flush=True)\ntime.sleep(1)\nprint('{}')")
    children.in_clean_process(path, tmp_path, {}, said.append)
    assert list(dict.fromkeys(said)) == ["loading it with some library alone", "first"]


def test_a_child_that_fails_is_told_in_a_sentence(script: Callable[[str], Path], tmp_path: Path) -> None:
    path = script("raise ValueError('it is broken.')")
    with pytest.raises(Failure, match=r"some library alone failed .*it is broken") as error:
        children.in_clean_process(path, tmp_path, {}, lambda activity: None)
    assert is_one_sentence(str(error.value))


def test_a_child_that_takes_too_long_is_ended(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "TIMEOUT_S", 0.5)
    with pytest.raises(Failure, match="took longer"):
        children.in_clean_process(script("time.sleep(600)"), tmp_path, {}, lambda activity: None)


def test_a_child_ends_with_the_one_that_asked(script: Callable[[str], Path], tmp_path: Path) -> None:
    path = script(f"{TELL_PID}time.sleep(600)")

    def leaving(activity: str) -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        children.in_clean_process(path, tmp_path, {}, leaving)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid))
    assert os.getpid() != pid
