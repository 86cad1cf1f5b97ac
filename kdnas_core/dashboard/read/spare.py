"""Spares the server's collections of garbage what stays.

Streamlit collects garbage after each drawing of a page or a part of it, which takes the longer, the more
objects there are. Most stay as long as the server: modules, and the candidates of large runs.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil

from kdnas_core import dashboard


def load_pages() -> None:
    """Imports what pages need, before the first of them asks for it."""
    for module in pkgutil.walk_packages(dashboard.__path__, f"{dashboard.__name__}."):
        if module.name != f"{dashboard.__name__}.entry":  # it is the script of the pages, and draws them
            importlib.import_module(module.name)
    loaded()


def loaded() -> None:
    """Lets later collections pass over all objects of this moment; those that are dropped are still freed."""
    gc.collect()
    gc.freeze()
