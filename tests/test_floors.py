"""The house is built as it is drawn: what may import what, where SQL may be, and what is never done."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.tiny_runs import ROOT

FLOORS = (
    {"kdnas_core", "kdnas_core.errors", "kdnas_core.architecture", "kdnas_core.spec", "kdnas_core.published"},
    {"kdnas_core.distillation", "kdnas_core.measure"},
    {"kdnas_core.search"},
    {"kdnas_core.runs"},
    {
        "kdnas_core.export",
        "kdnas_core.importing",
        "kdnas_core.dashboard",
        "kdnas_core.progress_bar",
    },
    {
        "kdnas_core.cli",
        "kdnas_core.cli_base",
        "kdnas_core.cli_import",
        "kdnas_core.cli_latency",
        "kdnas_core.cli_students",
        "kdnas_core.__main__",
        "app",
        "pages",
    },
)
SOURCES = sorted([ROOT / "app.py", *(ROOT / "kdnas_core").rglob("*.py"), *(ROOT / "pages").rglob("*.py")])
STORE = ROOT / "kdnas_core" / "runs" / "store.py"
SQL = ("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "CREATE TABLE", "DROP TABLE", "PRAGMA ", "BEGIN IMM")
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
HEAVY = {"torch", "transformers", "onnxruntime", "datasets", "tokenizers"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside a function."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def floor_of(module: str) -> int | None:
    """The floor of a module; None where it is not of this house."""
    for floor, members in reversed(list(enumerate(FLOORS))):
        if any(module == member or module.startswith(f"{member}.") for member in members - {"kdnas_core"}):
            return floor
    return 0 if module == "kdnas_core" else None


def calls_of(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def where(path: Path, node: ast.expr) -> str:
    return f"{path.relative_to(ROOT)}, line {node.lineno}"


def test_every_file_stands_on_a_floor() -> None:
    assert len(SOURCES) > 30
    homeless = [str(path) for path in SOURCES if floor_of(module_of(path)) is None]
    assert homeless == []


def test_a_floor_is_told_by_the_longest_name() -> None:
    assert [floor_of(name) for name in ("kdnas_core.spec", "kdnas_core.measure.bench", "pages.run")] == [
        0,
        1,
        5,
    ]
    assert floor_of("torch") is None
    assert floor_of("kdnas_core.exporter") is None


def test_no_import_goes_up() -> None:
    up = []
    for path in SOURCES:
        floor = floor_of(module_of(path))
        assert floor is not None
        up += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imports_of(path)
            if (other := floor_of(name)) is not None and other > floor
        ]
    assert up == []


def test_only_the_store_speaks_sql() -> None:
    elsewhere = [
        where(path, node)
        for path in SOURCES
        if path != STORE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(word in node.value for word in SQL)
    ]
    assert elsewhere == []
    assert any(word in STORE.read_text() for word in SQL)


def test_only_the_store_imports_a_database() -> None:
    databases = {"sqlite3", "sqlite_utils", "apsw", "sqlalchemy"}
    importers = {
        path for path in SOURCES if any(name.split(".")[0] in databases for name in imports_of(path))
    }
    assert importers == {STORE}


def test_nothing_is_pickled_or_unpickled() -> None:
    for path in SOURCES:
        assert not {name.split(".")[0] for name in imports_of(path)} & PICKLES, path
        for call in calls_of(path):
            assert ast.unparse(call.func) not in ("torch.load", "torch.save", "pandas.read_pickle"), where(
                path, call
            )
            for keyword in call.keywords:
                safe = keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"
                assert safe, where(path, call)


def test_no_code_of_a_model_or_of_a_user_is_run() -> None:
    for path in SOURCES:
        for call in calls_of(path):
            assert ast.unparse(call.func) not in ("exec", "eval", "compile", "__import__", "os.system"), (
                where(path, call)
            )
            for keyword in call.keywords:
                never = {"trust_remote_code": "False", "shell": "False"}.get(keyword.arg or "")
                assert never in (None, ast.unparse(keyword.value)), where(path, call)


def test_the_light_modules_leave_torch_alone() -> None:
    light = [
        "runs.store",
        "runs.rows",
        "runs.launch",
        "runs.sources",
        "runs.score_table",
        "cli_students",
        "spec",
        "architecture",
        "search.space",
        "search.pareto",
    ]
    light += ["search.reward", "cli", "export", "importing", "progress_bar"]
    light += ["measure.memory", "measure.latency_model", "measure.sweep", "cli_import", "cli_latency"]
    modules = [f"kdnas_core.{name}" for name in light]
    modules += [module_of(path) for path in SOURCES if "dashboard" in path.parts and path.stem != "entry"]
    # one process for all; after each import it looks whether anything heavy came with it
    code = f"""
import importlib, json, sys
culprits = {{}}
for module in {modules}:
    importlib.import_module(module)
    came = {HEAVY} & set(sys.modules)
    if came:
        culprits[module] = sorted(came)
        break
print(json.dumps(culprits))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {}
