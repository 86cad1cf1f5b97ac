"""The schema as a series of migrations, one for each version."""

from __future__ import annotations

import json

from sqlite_utils import Database, Migrations

migrations = Migrations("kdnas")


@migrations(name="1_runs_candidates_layer_losses")
def _version_1(db: Database) -> None:
    # AUTOINCREMENT: the id of a deleted run is never reused, so an old link cannot show a new run
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
    # SQLite cannot change a primary key, so the table is replaced; all its losses are of hidden states
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


# the columns of a piece of work that is not a run
_WORK = """state TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL, heartbeat_at REAL, worker TEXT,
    request TEXT, activity TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0, error TEXT"""


@migrations(name="3_students_scorings")
def _version_3(db: Database) -> None:
    # parent has no REFERENCES: a student stays when its parent is deleted
    db.execute(f"""
        CREATE TABLE students (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, parent INTEGER,
            spec TEXT NOT NULL, loss REAL, notes TEXT NOT NULL DEFAULT '[]',
            languages TEXT NOT NULL DEFAULT '{{}}', {_WORK})""")
    db.execute("""
        CREATE TABLE student_losses (
            student INTEGER NOT NULL REFERENCES students ON DELETE CASCADE, step INTEGER NOT NULL,
            term TEXT NOT NULL DEFAULT 'hidden', layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL,
            loss REAL NOT NULL, PRIMARY KEY (student, step, term, layer, teacher_layer))""")
    db.execute(f"""
        CREATE TABLE scorings (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER REFERENCES candidates ON DELETE CASCADE,
            student INTEGER REFERENCES students ON DELETE CASCADE, spec TEXT NOT NULL, {_WORK})""")
    db.execute("""
        CREATE TABLE scores (
            scoring INTEGER NOT NULL REFERENCES scorings ON DELETE CASCADE, subject TEXT NOT NULL,
            task TEXT NOT NULL, metric TEXT NOT NULL, seed INTEGER NOT NULL, value REAL NOT NULL, rate REAL,
            PRIMARY KEY (scoring, subject, task, metric, seed))""")


@migrations(name="4_sweeps_estimates")
def _version_4(db: Database) -> None:
    db.execute("ALTER TABLE candidates ADD COLUMN estimated_ms REAL")
    db.execute(f"""
        CREATE TABLE sweeps (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE,
            spec TEXT NOT NULL, {_WORK})""")
    db.execute("""
        CREATE TABLE readings (
            sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE, runtime TEXT NOT NULL,
            batch_size INTEGER NOT NULL, sequence_length INTEGER NOT NULL, reading TEXT NOT NULL,
            PRIMARY KEY (sweep, runtime, batch_size, sequence_length))""")


@migrations(name="5_standard_errors_cuts")
def _version_5(db: Database) -> None:
    for table in ("candidates", "students"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN loss_se REAL")
        db.execute(f"ALTER TABLE {table} ADD COLUMN cut_from TEXT NOT NULL DEFAULT '[]'")


# the columns that move from the tables of work to that of jobs
_OF_JOBS = (
    *("state", "created_at", "finished_at", "heartbeat_at", "request", "activity"),
    *("seconds", "error", "step", "steps"),
)


def _end_jobs(db: Database, kind: str) -> None:
    """Adds a trigger that deletes the job of a deleted piece of work."""
    db.execute(f"""
        CREATE TRIGGER {kind}_end_their_job AFTER DELETE ON {kind}
        BEGIN DELETE FROM jobs WHERE kind = '{kind}' AND subject = OLD.id; END""")


@migrations(name="6_jobs_samples")
def _version_6(db: Database) -> None:
    db.execute("""
        CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject INTEGER NOT NULL,
            state TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL, heartbeat_at REAL, owner TEXT,
            fence INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, request TEXT,
            activity TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0,
            steps INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0, error TEXT,
            UNIQUE (kind, subject))""")
    db.execute("CREATE INDEX jobs_by_state ON jobs (state, created_at, id)")
    for kind in ("runs", "students", "scorings", "sweeps"):
        had = [name for name in _OF_JOBS if kind != "runs" or name not in ("step", "steps")]
        names = ", ".join(had)
        # no owner: workers of the earlier version hold no lock that shows whether they live
        db.execute(f"INSERT INTO jobs (kind, subject, {names}) SELECT '{kind}', id, {names} FROM {kind}")
        for name in (*had, "worker"):
            db.execute(f"ALTER TABLE {kind} DROP COLUMN {name}")
        _end_jobs(db, kind)
    db.execute("ALTER TABLE candidates ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0")
    for table, column in (("candidates", "latency"), ("runs", "teacher"), ("readings", "reading")):
        db.execute(f"ALTER TABLE {table} ADD COLUMN samples TEXT")
        for row in list(db.query(f"SELECT rowid AS row, {column} AS kept FROM {table}")):
            if row["kept"] is not None:
                kept = json.loads(row["kept"])
                reading = kept["latency"] if table == "runs" else kept
                samples = reading.pop("samples")
                reading["n"] = len(samples)
                db.execute(
                    f"UPDATE {table} SET {column} = ?, samples = ? WHERE rowid = ?",
                    [json.dumps(kept), json.dumps(samples), row["row"]],
                )
    for table, columns in (
        ("candidates", "run, episode"),
        ("students", "run"),
        ("students", "candidate"),
        ("students", "parent"),
        ("scorings", "run"),
        ("scorings", "candidate"),
        ("scorings", "student"),
        ("sweeps", "run"),
        ("sweeps", "candidate"),
    ):
        name = f"{table}_by_{columns.replace(', ', '_')}"
        db.execute(f"CREATE INDEX {name} ON {table} ({columns})")


@migrations(name="7_checks_exports")
def _version_7(db: Database) -> None:
    db.execute("""
        CREATE TABLE checks (
            id INTEGER PRIMARY KEY AUTOINCREMENT, wanted TEXT NOT NULL, sources TEXT NOT NULL DEFAULT '[]',
            spec TEXT NOT NULL, made TEXT NOT NULL DEFAULT '[]')""")
    db.execute("""
        CREATE TABLE exports (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER REFERENCES candidates ON DELETE CASCADE,
            student INTEGER REFERENCES students ON DELETE CASCADE, spec TEXT NOT NULL)""")
    for kind in ("checks", "exports"):
        _end_jobs(db, kind)
    for column in ("run", "candidate", "student"):
        db.execute(f"CREATE INDEX exports_by_{column} ON exports ({column})")


@migrations(name="8_errors_of_scores")
def _version_8(db: Database) -> None:
    for column in ("error", "chance"):
        db.execute(f"ALTER TABLE scores ADD COLUMN {column} REAL")


@migrations(name="9_outlook")
def _version_9(db: Database) -> None:
    for column in ("outlook", "earlier"):
        db.execute(f"ALTER TABLE runs ADD COLUMN {column} TEXT")


@migrations(name="10_resampled")
def _version_10(db: Database) -> None:
    db.execute("ALTER TABLE candidates ADD COLUMN resampled BLOB NOT NULL DEFAULT x''")


@migrations(name="11_revisions_layers_notes")
def _version_11(db: Database) -> None:
    _number_changes(db)
    db.execute("ALTER TABLE runs ADD COLUMN layers TEXT")
    db.execute("ALTER TABLE candidates ADD COLUMN similarity TEXT")
    db.execute("ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE runs ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'")
    db.execute("ALTER TABLE runs ADD COLUMN archived INTEGER NOT NULL DEFAULT 0")


def _number_changes(db: Database) -> None:
    """Numbers the changes of a run's candidates, so that a page reads only those that it does not know."""
    db.execute("ALTER TABLE candidates ADD COLUMN revision INTEGER NOT NULL DEFAULT 0")
    db.execute("CREATE INDEX candidates_by_run_revision ON candidates (run, revision)")
    # not of step, which changes each second of a mini-KD and is shown on the candidate's own page alone
    of = [
        name for name in db.table("candidates").columns_dict if name not in ("id", "run", "revision", "step")
    ]
    for event in ("INSERT", f"UPDATE OF {', '.join(of)}"):
        db.execute(f"""
            CREATE TRIGGER candidates_revised_by_{event.split()[0].lower()} AFTER {event} ON candidates
            BEGIN
                UPDATE candidates SET revision =
                    (SELECT max(revision) + 1 FROM candidates WHERE run = NEW.run) WHERE id = NEW.id;
            END""")
