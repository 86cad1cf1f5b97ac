"""The documents are a contract: they agree with the product."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from kdnas_core.cli.search import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"`{command}\b", README)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert COMMANDS[command].help


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_local_link_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_python_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    existing = {path.name for path in ROOT.glob("**/*.py") if ".venv" not in path.parts}
    assert set(re.findall(r"(\w+\.py)", text)) - existing == set()


def test_every_page_is_in_the_navigation() -> None:
    places = (ROOT / "kdnas_core" / "dashboard" / "ui" / "places.py").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "pages").glob("*.py") if page.name not in places] == []


def test_every_requirement_is_pinned_exactly() -> None:
    for name in ("requirements.txt", "requirements-test.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith(("#", "-r "))]
        assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_the_default_store_is_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"runs.db", "runs.db-*", "*.files/"} <= set(ignored)
