"""The store; the only folder with SQL."""

from kdnas_core.runs.store.base import LeaseLost, files_of
from kdnas_core.runs.store.opening import bytes_of, check_path, connect, connect_read_only, opened
from kdnas_core.runs.store.store import Store

__all__ = [
    "LeaseLost",
    "Store",
    "bytes_of",
    "check_path",
    "connect",
    "connect_read_only",
    "files_of",
    "opened",
]
