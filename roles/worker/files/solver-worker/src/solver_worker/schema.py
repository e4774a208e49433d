# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal's schema: a list of additive steps, and who may open which file.

A release appends a step and never edits one. ``min_reader`` is the oldest release schema that can
still work with the file after that step; raising it forbids the revert, so a step only adds.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import JournalRefusedError, NotWrittenError

APPLICATION_ID = 0x534F4C56
# docs/data-api.md says how.
WAY_BACK = "stop the worker, move journal.sqlite3* away together and restore a backup, or start with an empty one"


# Primary codes of SQLite for what may be over in a moment: room, rights, another process.
_PASSING = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
)


def refused(path: Path, exc: Exception, otherwise: str = "journal_unusable") -> JournalRefusedError:
    """Tells what may pass by itself from what a person has to mend."""
    cause = exc.__cause__ if isinstance(exc, NotWrittenError) else exc
    if isinstance(exc, OSError) or int(getattr(cause, "sqlite_errorcode", 0) or 0) & 0xFF in _PASSING:
        remedy = "make worker.state_dir writable, with room"
        return JournalRefusedError("journal_unwritable", f"opening the journal {path}: {exc}; {remedy}")
    what = str(exc) if isinstance(exc, sqlite3.Error) else f"what it says of itself cannot be read ({exc!r})"
    return JournalRefusedError(otherwise, f"opening the journal {path}: {what}; {WAY_BACK}")


@dataclass(frozen=True)
class Step:
    schema: int
    min_reader: int
    statements: tuple[str, ...]


STEPS: list[Step] = [
    Step(
        schema=1,
        min_reader=1,
        statements=(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
            "CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
            """CREATE TABLE tasks (
                 id TEXT PRIMARY KEY,
                 idempotency_key TEXT NOT NULL UNIQUE,
                 digest TEXT NOT NULL,
                 method TEXT NOT NULL,
                 state TEXT NOT NULL,
                 payload TEXT,
                 provider_id TEXT,
                 accepted_at REAL NOT NULL,
                 submitted_at REAL,
                 solved_at REAL,
                 expires_at REAL,
                 final_at REAL,
                 gone_at REAL,
                 resubmits INTEGER NOT NULL DEFAULT 0,
                 solution TEXT,
                 error_code TEXT,
                 error_class TEXT)""",
            "CREATE INDEX tasks_open ON tasks (state) WHERE final_at IS NULL",
            "CREATE INDEX tasks_kept ON tasks (final_at) WHERE final_at IS NOT NULL AND gone_at IS NULL",
            "CREATE INDEX tasks_gone ON tasks (accepted_at) WHERE gone_at IS NOT NULL",
            "CREATE TABLE probes (request_id TEXT PRIMARY KEY, begun_at REAL NOT NULL, answer TEXT)",
            "CREATE TABLE solve_times (slot INTEGER PRIMARY KEY, seconds REAL NOT NULL)",
        ),
    ),
]


@dataclass(frozen=True)
class Stamp:
    """What a file says about itself; schema 0 is an empty one."""

    schema: int
    min_reader: int


def newest() -> int:
    return STEPS[-1].schema


def inspect(path: Path) -> Stamp:
    """Reads only, and refuses a file that this release may not open."""
    if not path.exists() or path.stat().st_size == 0:
        _refuse_lone_log(path)
        return Stamp(0, 0)
    try:
        stamp = _read_stamp(path)
    except sqlite3.DatabaseError as exc:
        raise refused(path, exc) from exc
    if stamp.min_reader > newest():
        raise JournalRefusedError(
            "journal_too_new",
            f"opening the journal {path}: it needs a reader of schema {stamp.min_reader}, this release knows "
            f"{newest()}; install the release that wrote it, or a newer one",
        )
    return stamp


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _refuse_lone_log(path: Path) -> None:
    """SQLite would delete the log of a file that is missing or empty, and the tasks in it."""
    log = log_of(path)
    if log.exists() and log.stat().st_size:
        what = "is empty" if path.exists() else "is missing"
        message = f"opening the journal {path}: it {what}, but its log {log.name} holds {log.stat().st_size} bytes"
        raise JournalRefusedError("journal_damaged", f"{message}; put the file back, or {WAY_BACK}")


def connect_to_read(path: Path) -> sqlite3.Connection:
    # Without a write-ahead log nobody has the file open, and "immutable" leaves no trace beside it.
    option = "mode=ro" if log_of(path).exists() else "immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?{option}", uri=True, timeout=5)


def _read_stamp(path: Path) -> Stamp:
    connection = connect_to_read(path)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is a database, but not a worker's journal")
        rows = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('schema', 'min_reader')"))
        return Stamp(int(rows["schema"]), int(rows["min_reader"]))
    except (KeyError, ValueError) as exc:
        raise sqlite3.DatabaseError("it does not say its schema") from exc
    finally:
        connection.close()


def describe(path: Path) -> dict[str, Any]:
    stamp = inspect(path)
    return {
        "path": str(path),
        "exists": stamp.schema > 0,
        "schema": stamp.schema or None,
        "min_reader": stamp.min_reader or None,
        "migrates_to": newest() if stamp.schema < newest() else None,
    }


def back_up(connection: sqlite3.Connection, path: Path, schema: int) -> None:
    """A whole copy, made by SQLite and renamed into place, before a step changes the file."""
    target = path.with_name(f"{path.name}.schema-{schema}")
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(partial)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    partial.replace(target)
