"""Rules on SQL, imports and forbidden calls. `lint-imports` checks which folder may import which."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.tiny_runs import ROOT

SOURCES = sorted([ROOT / "app.py", *(ROOT / "kdnas_core").rglob("*.py"), *(ROOT / "pages").rglob("*.py")])
STORE = set((ROOT / "kdnas_core" / "runs" / "store").glob("*.py"))
SQL = ("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "CREATE TABLE", "DROP TABLE", "PRAGMA ", "BEGIN IMM")
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
PICKLING_CALLS = {"torch.load", "torch.save", "pandas.read_pickle", "joblib.load", "joblib.dump"}
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


def calls_of(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def where(path: Path, node: ast.expr) -> str:
    return f"{path.relative_to(ROOT)}, line {node.lineno}"


def test_only_the_store_speaks_sql() -> None:
    elsewhere = [
        where(path, node)
        for path in SOURCES
        if path not in STORE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(word in node.value for word in SQL)
    ]
    assert elsewhere == []
    assert any(word in path.read_text() for path in STORE for word in SQL)


def test_only_the_store_imports_a_database() -> None:
    databases = {"sqlite3", "sqlite_utils", "apsw", "sqlalchemy"}
    importers = {
        path for path in SOURCES if any(name.split(".")[0] in databases for name in imports_of(path))
    }
    assert importers and importers <= STORE


def test_nothing_is_pickled_or_unpickled() -> None:
    for path in SOURCES:
        imported = set(imports_of(path))
        if "joblib.cpu_count" in imported:  # nothing else of it
            imported -= {"joblib", "joblib.cpu_count"}
        assert not {name.split(".")[0] for name in imported} & PICKLES, path
        for call in calls_of(path):
            assert ast.unparse(call.func) not in PICKLING_CALLS, where(path, call)
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
    light = ["architecture", "spec", "files", "hardware", "data.corpus", "data.tasks", "data.labels"]
    light += ["models.sources", "models.mapping", "distillation.plan", "latency.model", "latency.sweep"]
    light += ["search.space", "search.pareto", "search.reward", "runs.store", "runs.records", "runs.launch"]
    light += ["runs.names", "runs.score_table", "package.export", "package.import_"]
    light += ["cli.base", "cli.search", "cli.students", "cli.latency", "cli.progress_bar"]
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
