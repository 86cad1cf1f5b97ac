"""The base of the store: the connection, writes under a lease, and rows as they are stored."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from sqlite_utils import Database

from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Job, Kind, Lease, Worker
from kdnas_core.runs.records import LayerLoss
from kdnas_core.runs.store import lease_locks
from kdnas_core.runs.store.migrations import migrations

BUSY_S = 30
JOB_COLUMNS = (
    *("state", "created_at", "finished_at", "heartbeat_at", "owner", "fence", "attempts", "request"),
    *("activity", "step", "steps", "seconds", "error"),
)

APART = ("samples", "earlier", "revision", "layers", "similarity")  # columns that are read on their own


class LeaseLost(Exception):
    """Raised when a process writes for work that another process has claimed."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"{lease.job.title} is no longer this process's.")


class Base:
    """One connection to a store; use it in the thread that opened it.

    Args:
        path: of the file.
        connection: to it.
        lease: the lease that each write requires; None for writes without a lease.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lease: Lease | None = None) -> None:
        self.path = path
        self._db = Database(connection)
        self._lease = lease
        self._columns: dict[str, list[str]] = {}
        self._writing = False

    def close(self) -> None:
        """Closes the connection; the store cannot be used afterwards."""
        self._db.close()

    def leased(self, lease: Lease) -> Self:
        """Returns the store under a lease: a write raises `LeaseLost` if the lease is not the last one."""
        return type(self)(self.path, self._db.conn, lease)

    def files(self, run: int, candidate: int | None = None) -> Path:
        """Returns the folder of a run's files, or of one of its candidates' weights; does not create it."""
        folder = files_of(self.path) / str(run)
        return folder if candidate is None else folder / str(candidate)

    @property
    def _leases(self) -> Path:
        """The folder of the locks that the workers on this host hold while they live."""
        return files_of(self.path.resolve()) / "leases"

    def migrate(self) -> None:
        """Applies pending migrations; several processes may call it at once."""
        if migrations.pending(self._db):
            with self._write():
                migrations.apply(self._db)

    @contextmanager
    def _write(self) -> Iterator[None]:
        if self._writing:  # a part of a larger write
            yield
            return
        # IMMEDIATE: a deferred transaction that reads first fails if another one writes before it does
        self._db.execute("BEGIN IMMEDIATE")
        self._writing = True
        try:
            if self._lease is not None:
                self._check_lease(self._lease)
            yield
        except BaseException:
            self._db.conn.rollback()
            raise
        else:
            self._db.conn.commit()
        finally:
            self._writing = False

    def _check_lease(self, lease: Lease) -> None:
        found = self._db.query(
            "SELECT 1 FROM jobs WHERE kind = ? AND subject = ? AND fence = ? AND state = 'running'",
            [lease.job.kind, lease.job.id, lease.fence],
        )
        if not list(found):
            raise LeaseLost(lease)

    def _create(self, kind: Kind, row: dict[str, Any], worker: Worker | None) -> int:
        with self._write():
            subject = self._inserted_work(kind, {**row, "state": "queued", "created_at": time.time()})
            if worker is not None:
                self._lease_to(worker, Job(kind, subject))
        return subject

    def _lease_to(self, worker: Worker, job: Job) -> None:
        (fence,) = self._db.execute(
            """UPDATE jobs SET state = 'running', owner = :owner, heartbeat_at = :now, fence = fence + 1,
                attempts = attempts + 1, activity = '', request = NULL, error = NULL, finished_at = NULL
            WHERE kind = :kind AND subject = :id RETURNING fence""",
            {"owner": json.dumps(asdict(worker)), "now": time.time(), "kind": job.kind, "id": job.id},
        ).fetchone()
        if worker == Worker.this_process():
            lease_locks.hold(self._leases, Lease(job, fence))

    def _update(self, table: str, row: int, fields: dict[str, Any]) -> None:
        with self._write():
            self._set(table, row, fields)

    def _set(self, table: str, row: int, fields: dict[str, Any]) -> None:
        self._db.table(table).update(row, kept(fields))

    def _set_job(self, job: Job, fields: dict[str, Any]) -> None:
        """Sets columns of a job; requires an open transaction."""
        columns = ", ".join(f"{name} = :{name}" for name in fields)
        self._db.execute(
            f"UPDATE jobs SET {columns} WHERE kind = :kind AND subject = :id",
            {**fields, "kind": job.kind, "id": job.id},
        )

    def _update_work(self, job: Job, fields: dict[str, Any]) -> None:
        """Sets columns of a piece of work, in its job or in its own table."""
        own, of_job = _own_and_of_job(fields)
        with self._write():
            if of_job:
                self._set_job(job, of_job)
            if own:
                self._set(job.kind, job.id, own)

    def _inserted(self, table: str, row: dict[str, Any]) -> int:
        made = self._db.table(table).insert(kept(row), pk="id").last_pk
        assert isinstance(made, int)
        return made

    def _inserted_work(self, kind: Kind, fields: dict[str, Any]) -> int:
        """Adds a piece of work and its job, and returns its id; requires an open transaction."""
        own, of_job = _own_and_of_job(fields)
        subject = self._inserted(kind, own)
        self._inserted("jobs", {"kind": kind, "subject": subject, **of_job})
        return subject

    def _light_columns(self, table: str) -> list[str]:
        """The columns of a table without those that are read on their own."""
        if table not in self._columns:
            columns = self._db.table(table).columns_dict
            self._columns[table] = [name for name in columns if name not in APART]
        return self._columns[table]

    def _select(self, table: str, order: str = "id DESC", **wanted: int | None) -> list[dict[str, Any]]:
        """The rows with the values that are not None, without the samples of latencies."""
        where, given = _where(wanted)
        columns = ", ".join(self._light_columns(table))
        return list(self._db.query(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order}", given))

    def _select_work(
        self, kind: Kind, limit: int | None = None, **wanted: int | None
    ) -> list[dict[str, Any]]:
        """The newest rows of work with the columns of their jobs, newest first; as `_select`."""
        where, given = _where(wanted, "work.")
        columns = ", ".join(f"work.{name}" for name in self._light_columns(kind))
        job = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS)
        return list(
            self._db.query(
                f"""SELECT {columns}, {job} FROM {kind} AS work
                JOIN jobs ON jobs.kind = '{kind}' AND jobs.subject = work.id
                WHERE {where} ORDER BY work.id DESC LIMIT {-1 if limit is None else limit:d}""",
                given,
            )
        )

    def _samples(self, table: str, row: int) -> list[float]:
        """The samples of a row's latency."""
        (kept_apart,) = self._db.query(f"SELECT samples FROM {table} WHERE id = ?", [row])
        samples: list[float] = json.loads(kept_apart["samples"] or "[]")
        return samples

    def _add_losses(self, table: str, owner: str, row: int, losses: Sequence[LayerLoss]) -> None:
        with self._write():
            self._db.table(table).insert_all(
                [{owner: row, **asdict(loss)} for loss in losses],
                pk=(owner, "step", "term", "layer", "teacher_layer"),
                replace=True,  # a resumed training repeats an evaluation
            )


def files_of(path: Path) -> Path:
    """Returns the folder beside a store that holds the files of its runs."""
    return path.with_name(f"{path.name}.files")


def kept(fields: dict[str, Any]) -> dict[str, Any]:
    """Converts fields to columns: dictionaries, lists and tuples to JSON."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list | tuple) else value
        for name, value in fields.items()
    }


def apart(column: str, reading: dict[str, Any] | None) -> dict[str, Any]:
    """Splits a latency reading into a column of its own and a column of its samples.

    Args:
        column: name of the reading's column.
        reading: from `LatencyReading.to_dict`.
    """
    if reading is None:
        return {column: None, "samples": None}
    rest = {name: value for name, value in reading.items() if name != "samples"}
    return {column: rest, "samples": list(reading["samples"])}


def only(rows: Sequence[dict[str, Any]], missing: str) -> dict[str, Any]:
    """Returns the first row.

    Raises:
        BadInput: there is none; its message is `missing`.
    """
    if not rows:
        raise BadInput(missing)
    return rows[0]


def _own_and_of_job(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits the fields of a piece of work into those of its own table and those of its job."""
    of_job = {name: value for name, value in fields.items() if name in JOB_COLUMNS}
    return {name: value for name, value in fields.items() if name not in JOB_COLUMNS}, of_job


def _where(wanted: dict[str, int | None], prefix: str = "") -> tuple[str, dict[str, int]]:
    given = {column: value for column, value in wanted.items() if value is not None}
    return " AND ".join(f"{prefix}{column} = :{column}" for column in given) or "TRUE", given
