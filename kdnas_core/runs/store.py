"""The store: every run and candidate in one SQLite file. The only file with SQL.

WAL, so that readers never wait for the writer; every write is one short BEGIN IMMEDIATE transaction, so
that a kill between two of them loses nothing that was finished. Migrations are sqlite-utils' own.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlite_utils import Database, Migrations

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.runs.rows import (
    ACTIVE,
    RESUMABLE,
    Candidate,
    LayerLoss,
    Run,
    RunState,
    TeacherFacts,
    Worker,
)
from kdnas_core.spec import RunSpec, parse_spec_json

BUSY_S = 30
METHOD = 2  # raised when the same spec gives a candidate another loss than before
LOOKS = 5  # at a file before it is refused
STALE_S = 60  # without a beat, for a worker on another host, whose processes cannot be seen

migrations = Migrations("kdnas")


@migrations(name="1_runs_candidates_layer_losses")
def _version_1(db: Database) -> None:
    # AUTOINCREMENT: the id of a deleted run is never given to another, so an old link cannot show a new run.
    db.execute("""
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,
            created_at REAL NOT NULL, finished_at REAL, heartbeat_at REAL, worker TEXT, request TEXT,
            episode INTEGER NOT NULL DEFAULT 0, activity TEXT NOT NULL DEFAULT '',
            seconds REAL NOT NULL DEFAULT 0, error TEXT, teacher TEXT)""")
    db.execute("""
        CREATE TABLE candidates (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            episode INTEGER NOT NULL, state TEXT NOT NULL, key TEXT NOT NULL, architecture TEXT NOT NULL,
            parameters INTEGER, flops INTEGER, latency TEXT, loss REAL, reward REAL, predicted_reward REAL,
            scores TEXT NOT NULL DEFAULT '{}', seconds REAL NOT NULL DEFAULT 0, error TEXT,
            step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
            weights INTEGER NOT NULL DEFAULT 0, UNIQUE (run, key))""")
    db.execute("""
        CREATE TABLE layer_losses (
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, step INTEGER NOT NULL,
            layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL, loss REAL NOT NULL,
            PRIMARY KEY (candidate, step, layer, teacher_layer))""")


@migrations(name="2_terms_notes_languages")
def _version_2(db: Database) -> None:
    db.execute("ALTER TABLE candidates ADD COLUMN notes TEXT NOT NULL DEFAULT '[]'")
    db.execute("ALTER TABLE candidates ADD COLUMN languages TEXT NOT NULL DEFAULT '{}'")
    db.execute("ALTER TABLE runs ADD COLUMN method INTEGER NOT NULL DEFAULT 1")
    # SQLite cannot change a primary key: the table is made anew, what it holds was the loss of hidden states
    db.execute("ALTER TABLE layer_losses RENAME TO layer_losses_1")
    db.execute("""
        CREATE TABLE layer_losses (
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, step INTEGER NOT NULL,
            term TEXT NOT NULL DEFAULT 'hidden', layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL,
            loss REAL NOT NULL, PRIMARY KEY (candidate, step, term, layer, teacher_layer))""")
    db.execute("""
        INSERT INTO layer_losses (candidate, step, layer, teacher_layer, loss)
        SELECT candidate, step, layer, teacher_layer, loss FROM layer_losses_1""")
    db.execute("DROP TABLE layer_losses_1")


class Store:
    """One connection to a store; use it in the thread that opened it, and close it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = Database(connection)

    def close(self) -> None:
        """Closes the connection; the store is of no use afterwards."""
        self._db.close()

    # --- runs ---------------------------------------------------------------------------------------------

    def create_run(self, spec: RunSpec, worker: Worker | None = None) -> int:
        """Queues a run, or starts it as this worker's at once, and returns its id."""
        now = time.time()
        row = {"name": spec.name, "state": "queued", "spec": spec.to_json(), "created_at": now}
        row["method"] = METHOD
        if worker is not None:
            row |= {"state": "running", "worker": json.dumps(asdict(worker)), "heartbeat_at": now}
        with self._write():
            run = self._db.table("runs").insert(row, pk="id").last_pk
        assert isinstance(run, int)
        return run

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        return [_run(row) for row in self._db.query("SELECT * FROM runs ORDER BY id DESC")]

    def run(self, run: int) -> Run:
        """One run.

        Raises:
            BadInput: there is no such run.
        """
        rows = list(self._db.query("SELECT * FROM runs WHERE id = ?", [run]))
        if not rows:
            raise BadInput(f"There is no run {run} in {self.path}; `python -m kdnas_core runs` lists them.")
        return _run(rows[0])

    def claim_run(self, worker: Worker) -> Run | None:
        """Makes the oldest queued run this worker's; None where there is none."""
        with self._write():
            rows = list(
                self._db.query(
                    """UPDATE runs SET state = 'running', worker = :worker, request = NULL, error = NULL,
                        finished_at = NULL, heartbeat_at = :now
                    WHERE id = (SELECT id FROM runs WHERE state = 'queued' ORDER BY id LIMIT 1)
                    RETURNING *""",
                    {"worker": json.dumps(asdict(worker)), "now": time.time()},
                )
            )
            if rows:  # what a killed worker left half done is to be done again
                self._forget_unfinished(rows[0]["id"])
        return _run(rows[0]) if rows else None

    def heartbeat(self, run: int) -> None:
        """Says that the worker lives, and counts the time since it last said so as worked."""
        with self._write():
            self._db.execute(
                """UPDATE runs SET seconds = seconds + (:now - heartbeat_at), heartbeat_at = :now
                WHERE id = :run AND state = 'running'""",
                {"now": time.time(), "run": run},
            )

    def set_activity(self, run: int, activity: str) -> None:
        """What the worker does now, in words for the page."""
        self._update("runs", run, {"activity": activity})

    def set_teacher(self, run: int, spec: RunSpec, teacher: TeacherFacts) -> None:
        """Keeps the teacher's measurements and the spec with its space filled in."""
        facts = {
            "name": teacher.name,
            "architecture": teacher.architecture.to_dict(),
            "parameters": teacher.parameters,
            "flops": teacher.flops,
            "latency": teacher.latency.to_dict(),
        }
        self._update("runs", run, {"spec": spec.to_json(), "teacher": json.dumps(facts)})

    def end_run(self, run: int, state: RunState, error: str | None = None) -> None:
        """Takes the run from its worker: finished, failed, paused, stopped or interrupted."""
        self.heartbeat(run)
        now = time.time()
        fields = {"state": state, "error": error, "request": None, "activity": "", "finished_at": now}
        with self._write():
            self._forget_unfinished(run)
            self._db.table("runs").update(run, fields)

    def ask(self, run: int, request: Literal["pause", "stop"]) -> RunState:
        """Asks that a run pause or stop, and returns its state.

        A running run obeys within seconds, when its worker next looks; any other changes here.

        Raises:
            BadInput: there is no such run, or it is over.
        """
        with self._write():
            state = self.run(run).state
            if state == "running":
                self._db.table("runs").update(run, {"request": request})
                return state
            if state in ("finished", "failed") or (request == "pause" and state == "stopped"):
                raise BadInput(f"Run {run} is {state}; only a run that is not over can {request}.")
            asked: RunState = "paused" if request == "pause" else "stopped"
            self._forget_unfinished(run)
            self._db.table("runs").update(run, {"state": asked, "request": None, "worker": None})
            return asked

    def resume(self, run: int) -> RunState:
        """Queues a run that was paused, stopped, interrupted or failed; an active one stays as it is.

        Raises:
            BadInput: there is no such run, it is finished, or another version has judged candidates of it.
        """
        with self._write():
            state = self.run(run).state
            if state in ACTIVE:
                self._db.table("runs").update(run, {"request": None})
                return state
            if state not in RESUMABLE:
                raise BadInput(f"Run {run} is {state}; there is nothing left to resume.")
            self._forget_unfinished(run)
            self._check_method(run)
            queued = {"state": "queued", "request": None, "error": None, "finished_at": None, "worker": None}
            self._db.table("runs").update(run, {**queued, "method": METHOD})
            return "queued"

    def _check_method(self, run: int) -> None:
        """Refuses to mix losses of two methods in one run, where they could not be told apart."""
        (row,) = self._db.query(
            """SELECT method,
                EXISTS (SELECT * FROM candidates WHERE run = runs.id AND state = 'done') AS judged
            FROM runs WHERE id = ?""",
            [run],
        )
        if row["method"] != METHOD and row["judged"]:
            raise BadInput(
                f"Run {run} was begun by another version of the product, whose losses do not compare with "
                "those of this one; it can be looked at as it is, and a new search goes on."
            )

    def delete_run(self, run: int) -> None:
        """Deletes a run, its candidates and their files.

        Raises:
            BadInput: there is no such run, or a worker is at it.
        """
        with self._write():
            if self.run(run).state == "running":
                raise BadInput(f"Run {run} is running; stop it before you delete it.")
            self._db.table("runs").delete(run)
        shutil.rmtree(self.files(run), ignore_errors=True)

    def files(self, run: int, candidate: int | None = None) -> Path:
        """The folder of a run's files, or of one of its candidates' weights; made by who writes there."""
        folder = files_of(self.path) / str(run)
        return folder if candidate is None else folder / str(candidate)

    # --- candidates ---------------------------------------------------------------------------------------

    def begin_episode(
        self, run: int, episode: int, proposals: Sequence[tuple[Architecture, float | None]]
    ) -> None:
        """Records an episode's proposals, each with the reward that the controller predicts for it."""
        rows = [
            {
                "run": run,
                "episode": episode,
                "state": "proposed",
                "key": architecture.key,
                "architecture": json.dumps(architecture.to_dict()),
                "predicted_reward": predicted,
            }
            for architecture, predicted in proposals
        ]
        with self._write():
            self._db.table("candidates").insert_all(rows, pk="id")
            self._db.table("runs").update(run, {"episode": episode})

    def candidates(self, run: int) -> list[Candidate]:
        """A run's candidates in the order they were proposed."""
        rows = self._db.query("SELECT * FROM candidates WHERE run = ? ORDER BY id", [run])
        return [_candidate(row) for row in rows]

    def candidate(self, candidate: int) -> Candidate:
        """One candidate.

        Raises:
            BadInput: there is no such candidate.
        """
        rows = list(self._db.query("SELECT * FROM candidates WHERE id = ?", [candidate]))
        if not rows:
            raise BadInput(
                f"There is no candidate {candidate} in {self.path}; `show RUN` lists those of a run."
            )
        return _candidate(rows[0])

    def update_candidate(self, candidate: int, **fields: Any) -> None:
        """Sets columns of a candidate; dictionaries, lists and tuples are kept as JSON."""
        kept = {
            name: json.dumps(value) if isinstance(value, dict | list | tuple) else value
            for name, value in fields.items()
        }
        self._update("candidates", candidate, kept)

    def add_layer_losses(self, candidate: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a candidate's mini-KD."""
        with self._write():
            self._db.table("layer_losses").insert_all(
                [{"candidate": candidate, **asdict(loss)} for loss in losses],
                pk=("candidate", "step", "term", "layer", "teacher_layer"),
                replace=True,  # an evaluation that a training which went on makes again
            )

    def layer_losses(self, candidate: int) -> list[LayerLoss]:
        """A candidate's held-out losses by step, term, layer and teacher layer."""
        rows = self._db.query("SELECT * FROM layer_losses WHERE candidate = ?", [candidate])
        losses = [_layer_loss(row) for row in rows]
        return sorted(losses, key=lambda loss: (loss.step, loss.term, loss.layer, loss.teacher_layer))

    # --- inside -------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Brings the tables up to date; safe from several processes at once."""
        if migrations.pending(self._db):
            with self._write():
                migrations.apply(self._db)

    @contextmanager
    def _write(self) -> Iterator[None]:
        # IMMEDIATE: a deferred transaction that reads first fails at once when another wrote meanwhile.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.conn.rollback()
            raise
        self._db.conn.commit()

    def _update(self, table: str, row: int, fields: dict[str, Any]) -> None:
        with self._write():
            self._db.table(table).update(row, fields)

    def _forget_unfinished(self, run: int) -> None:
        self._db.execute(
            """DELETE FROM layer_losses WHERE candidate IN
            (SELECT id FROM candidates WHERE run = ? AND state IN ('proposed', 'distilling'))""",
            [run],
        )
        self._db.execute(
            """UPDATE candidates SET state = 'proposed', step = 0, notes = '[]', languages = '{}'
            WHERE run = ? AND state = 'distilling'""",
            [run],
        )


def files_of(path: Path) -> Path:
    """The folder beside a store that holds the files of its runs."""
    return path.with_name(f"{path.name}.files")


def check_path(path: Path) -> None:
    """Refuses, without writing, what `connect` would refuse.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be one.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise BadInput(f"{path} cannot hold the runs: name a file in a folder that exists with --db.")
    if path.exists():
        _check_ours(path)


def connect(path: Path) -> Store:
    """Opens a store for writing, made and migrated where that is needed.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be written.
    """
    check_path(path)  # before anything is written to a file that may be somebody else's
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
    """Opens a store that exists for reading alone; nothing done through it can change the file.

    Raises:
        BadInput: there is no such file, it is not a store, or is of a newer version.
    """
    if not path.is_file():
        raise BadInput(f"There is no {path}; start a search first, or name another file with --db.")
    if not _check_ours(path):
        raise BadInput(f"{path} holds no runs yet; start a search first, or name another file with --db.")
    return Store(path, _connect(f"{path.resolve().as_uri()}?mode=ro", path))


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[Store]:
    """A store for the length of a `with` block; raises as `connect` and `connect_read_only` do."""
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
    """Turns WAL on; SQLite itself does not wait here, whatever the timeout, for one who does the same."""
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
    """Whether a store that is ours, or empty, has its tables yet; leaves nothing beside one that is not."""
    for _ in range(LOOKS):
        try:
            return _looks_ours(path)
        except BadInput:
            # another process may be making it this moment: without its lock, half of it can be seen
            time.sleep(0.05)
    return _looks_ours(path)


def _looks_ours(path: Path) -> bool:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():
        uri += "&immutable=1"  # else SQLite would leave side files beside a file that is refused
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


def _run(row: dict[str, Any]) -> Run:
    worker = Worker(**json.loads(row["worker"])) if row["worker"] else None
    state: RunState = row["state"]
    stale = worker and worker.is_elsewhere() and time.time() - (row["heartbeat_at"] or 0) > STALE_S
    if state == "running" and (stale or not (worker and worker.is_alive())):
        state = "interrupted"
    teacher = json.loads(row["teacher"]) if row["teacher"] else None
    return Run(
        **{
            **{name: value for name, value in row.items() if name != "method"},
            "state": state,
            "worker": worker,
            "spec": parse_spec_json(row["spec"]),
            "teacher": teacher and _teacher(teacher),
        }
    )


def _teacher(facts: dict[str, Any]) -> TeacherFacts:
    return TeacherFacts(
        **{
            **facts,
            "architecture": Architecture(**facts["architecture"]),
            "latency": LatencyReading.from_dict(facts["latency"]),
        }
    )


def _candidate(row: dict[str, Any]) -> Candidate:
    del row["key"]
    latency = json.loads(row["latency"]) if row["latency"] else None
    return Candidate(
        **{
            **row,
            "architecture": Architecture(**json.loads(row["architecture"])),
            "latency": latency and LatencyReading.from_dict(latency),
            "scores": json.loads(row["scores"]),
            # a file of version 1 that is opened for reading alone is not migrated, and has neither
            "notes": tuple(json.loads(row.get("notes", "[]"))),
            "languages": json.loads(row.get("languages", "{}")),
            "weights": bool(row["weights"]),
        }
    )


def _layer_loss(row: dict[str, Any]) -> LayerLoss:
    del row["candidate"]
    return LayerLoss(**row)
