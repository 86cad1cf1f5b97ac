"""A consistent copy of a store's file, also while it is written to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from kdnas_core.errors import BadInput, Failure
from kdnas_core.files import own_folder, sync
from kdnas_core.runs.store.opening import opened


def backup(db: Path, to: Path) -> None:
    """Copies a store as it is at one moment; the files of its students are not in it.

    Args:
        db: the store.
        to: a file that does not exist yet; it appears once it is whole.

    Raises:
        BadInput: there is no store, or the copy cannot be there.
        Failure: it could not be written.
    """
    with opened(db, read_only=True):
        pass  # refuses what is no store
    if to.exists() or to.is_symlink():
        raise BadInput(f"{to} exists already; name a file that does not.")
    if not to.parent.is_dir():
        raise BadInput(f"There is no folder {to.parent}; make it, or name a file in one that exists.")
    try:
        with own_folder(to.parent, f".{to.name}.backup-") as own:
            with closing(sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro", uri=True)) as store:
                store.execute("VACUUM INTO ?", [str(own / to.name)])
            sync(own / to.name)
            (own / to.name).rename(to)
        sync(to.parent)
    except (sqlite3.Error, OSError) as error:
        raise Failure(f"{to} could not be written ({error}); free space, or name another place.") from None
