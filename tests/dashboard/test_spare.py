from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from kdnas_core.dashboard.read import spare
spare.load_pages()
assert "kdnas_core.dashboard.run.frontier_figure" in sys.modules
assert "kdnas_core.dashboard.entry" not in sys.modules  # it would draw a page
assert not {"torch", "transformers", "onnxruntime", "datasets", "optuna"} & set(sys.modules)
kept = gc.get_freeze_count()
gc.collect()
assert gc.get_freeze_count() == kept > 100_000, kept

class Node: pass
node = Node(); node.self = node
import weakref
gone = weakref.ref(node)
del node
gc.collect()
assert gone() is None  # what comes later is collected
"""


def test_later_collections_pass_over_what_pages_need_and_take_what_comes_after() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
