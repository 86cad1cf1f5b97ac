"""Opens a store: creates it, migrates it, and refuses other files."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

from sqlite_utils import Database

from kdnas_core.errors import BadInput
from kdnas_core.runs.store.base import BUSY_S
from kdnas_core.runs.store.migrations import migrations
from kdnas_core.runs.store.store import Store

LOOKS = 5  # attempts to read a file before it is refused


def bytes_of(folder: Path) -> int:
    """Returns the size of a folder's files in bytes; 0 if there is none. Files may be deleted meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def check_path(path: Path) -> None:
    """Checks that `connect` would accept a path, without writing.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be one.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise BadInput(f"{path} cannot hold the runs: name a file in a folder that exists with --db.")
    if path.exists():
        _check_ours(path)


def connect(path: Path) -> Store:
    """Opens a store for writing; creates or migrates it if needed.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be written.
    """
    check_path(path)  # never write to the file of another program
    connection = _connect(path.resolve().as_uri(), path)
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        store = Store(path, connection)
        store.migrate()
    except sqlite3.OperationalError as error:
        connection.close()
        raise BadInput(f"{path} cannot be written ({error}); name another file with --db.") from None
    return store


def connect_read_only(path: Path) -> Store:
    """Opens an existing store for reading; the connection cannot change the file.

    Raises:
        BadInput: there is no such file, it is not a store, or is of a newer version.
    """
    if not path.is_file():
        raise BadInput(f"There is no {path}; start a search first, or name another file with --db.")
    if not _check_ours(path):
        raise BadInput(f"{path} holds no runs yet; start a search first, or name another file with --db.")
    connection = _connect(f"{path.resolve().as_uri()}?mode=ro", path)
    return Store(path, _up_to_date(connection))


def _up_to_date(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Returns the connection, or one to a migrated copy in memory if the file is of an earlier version."""
    if not migrations.pending(Database(connection)):
        return connection
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection):
        connection.backup(copy)
    migrations.apply(Database(copy))
    copy.execute("PRAGMA query_only = ON")
    return copy


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[Store]:
    """Opens a store for a `with` block; raises as `connect` and `connect_read_only` do."""
    store = connect_read_only(path) if read_only else connect(path)
    try:
        yield store
    finally:
        store.close()


def _connect(uri: str, path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise BadInput(f"{path} cannot be opened ({error}); name another file with --db.") from None


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turns WAL on; retries, since SQLite ignores its timeout here if another process does the same."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_ours(path: Path) -> bool:
    """Returns whether a store has its tables; raises `BadInput` for other files, without writing."""
    for _ in range(LOOKS):
        try:
            return _looks_ours(path)
        except BadInput:
            # another process may be creating it; without its lock, an incomplete file can be read
            time.sleep(0.05)
    return _looks_ours(path)


def _looks_ours(path: Path) -> bool:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():
        uri += "&immutable=1"  # else SQLite would leave files beside a file that is refused
    try:
        with closing(_connect(uri, path)) as connection:
            db = Database(connection)
            tables = set(db.table_names())
            applied = {migration.name for migration in migrations.applied(db)}
    except sqlite3.DatabaseError:
        raise BadInput(
            f"{path} is not a database of runs; move it away or name another file with --db."
        ) from None
    if applied - _known_migrations():
        raise BadInput(
            f"{path} comes from a newer version of KD-NAS Studio; update this one, or name another with --db."
        )
    if tables and not applied:
        raise BadInput(f"{path} is the database of another program; name another file with --db.")
    return bool(applied)


@cache
def _known_migrations() -> frozenset[str]:
    with closing(sqlite3.connect(":memory:")) as empty:
        return frozenset(migration.name for migration in migrations.pending(Database(empty)))
