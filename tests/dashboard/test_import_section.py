"""The part of the home page that imports a search or a student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core.dashboard.act import starting
from kdnas_core.dashboard.home import import_section
from kdnas_core.dashboard.ui import places
from kdnas_core.errors import BadInput
from kdnas_core.runs.store import opened
from kdnas_core.spec import DistilSpec, RunSpec, parse_spec, quick_spec
from tests.exported import sha256, write_export, zipped
from tests.served import Served, served
from tests.test_pages import shown, words

__all__ = ["served"]  # the fixture

START, IMPORT = "Start this search", "Import this student"


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDNAS_DB", str(tmp_path / "runs.db"))
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs.db"


@pytest.fixture(scope="module")
def exported(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("exported") / "s3", tiny_teacher, student=DistilSpec())


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the process that loads the weights, which tests/test_importing.py has."""
    monkeypatch.setattr("kdnas_core.package.import_.check_weights", lambda *_: None)


def dropped(name: str, content: bytes) -> AppTest:
    app = shown(places.HOME)
    app.file_uploader[0].set_value((name, content, "application/octet-stream"))
    app.run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    (button,) = [button for button in app.button if button.label == label]
    button.click().run()
    assert not app.exception
    return app


def labels(app: AppTest) -> list[str]:
    return [str(button.label) for button in app.button]


def test_a_dropped_search_is_said_in_words_and_started_as_it_is(db: Path, served: Served) -> None:
    spec = quick_spec(seed=4).model_copy(update={"name": "**mine**"})
    app = dropped("run.json", spec.to_json().encode())
    told = words(app)
    assert "The search \\*\\*mine\\*\\*" in told
    assert "2× faster than the teacher in ONNX Runtime" in told
    assert "4 episodes of 4 candidates" in told
    assert "Controller: Surrogate" in told
    assert IMPORT not in labels(app)
    app = press(app, START)
    assert [check.spec for check in served.checks] == [spec]
    assert "Run 1" in words(app), "it leads to the run"


def test_a_search_that_cannot_run_here_says_why_beside_its_button(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise BadInput("There is no teacher 'x' on this machine.")

    monkeypatch.setattr(starting, "start", refuse)
    app = press(dropped("run.json", RunSpec(teacher="x").to_json().encode()), START)
    assert "Not started. There is no teacher" in words(app)
    assert not next(button for button in app.button if button.label == START).disabled
    assert not db.exists()


@pytest.mark.slow
def test_a_dropped_student_comes_back_and_its_pages_show_it(db: Path, exported: Path, unloaded: None) -> None:
    app = dropped("s3.zip", zipped(exported))
    told = words(app)
    assert "2 layers · hidden 16" in told
    assert "ms p50, measured on node\\-3" in told
    assert {IMPORT, START} <= set(labels(app))
    app = press(app, IMPORT)
    assert sha256(exported / "model.safetensors") in "".join(str(part.value) for part in app.success)
    assert IMPORT not in labels(app)
    (link,) = [link for link in app.get("page_link") if "student s1" in link.proto.label]
    assert "student=1" in link.proto.query_string
    with opened(db, read_only=True) as store:
        assert store.student(1).state == "finished"
    for page, address in (
        (places.RUN, {"run": 1}),
        (places.CANDIDATE, {"candidate": 1}),
        (places.STUDENT, {"student": 1}),
        (places.LEADERBOARD, {}),
        (places.HOME, {}),
    ):
        seen = shown(page, **address)
        assert not seen.error, page


def test_a_student_that_does_not_load_is_not_imported_and_its_button_stays(
    db: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BadInput("It is none.")

    monkeypatch.setattr("kdnas_core.package.import_.check_weights", refuse)
    app = press(dropped("s3.zip", zipped(exported)), IMPORT)
    assert "Not imported. It is none" in words(app)
    assert IMPORT in labels(app)
    assert not db.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{"),
        ("config.json", json.dumps({"model_type": "bert"}).encode()),
        ("it.zip", b"no zip"),
        (f"<b>{'x' * 300}</b>\n# it.zip", b""),
    ],
)
def test_what_is_neither_is_refused_in_a_sentence_without_a_button(
    db: Path, name: str, content: bytes
) -> None:
    app = dropped(name, content)
    assert len(app.error) == 1
    assert not {IMPORT, START} & set(labels(app))
    assert not db.exists()


def test_a_space_is_told_in_short() -> None:
    told = [
        import_section.space_in_words(parse_spec({"space": given}).space)
        for given in ("teacher", "tinybert4")
    ]
    assert told == ["derived from the teacher", "published students tinybert4"]
    space = parse_spec({"space": {"layers": [3, 2], "hidden_act": ["relu"]}}).space
    assert import_section.space_in_words(space) == "layers 2, 3; hidden act relu"
