# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: what a worker has promised, committed before it is said aloud.

The order of the commits is the contract: accepted, submitting, polling, final. Every method that
changes anything is one transaction that also moves the totals, so the books balance at any instant.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from . import histogram, schema
from .clock import UNKNOWN_BOOT
from .codes import Class
from .errors import NotWrittenError
from .schema import Stamp

TOTALS = (
    "accepted",
    "succeeded",
    "failed",
    "uncertain",
    "expired",
    "probes",
    "provider_submits",
    "refused",
)
# Calls of res.php, kept for the provider's account rule; not part of the status document.
RES_CALLS = "res_calls"
# Parts of two totals, by the class of the failure and by the bucket of the solve time.
CLASSES: tuple[str, ...] = get_args(Class)
FAILED, SOLVED = "failed.", "solved."
FINALS = ("succeeded", "failed", "expired", "uncertain")
OPEN = ("accepted", "submitting", "polling")
KEPT_SOLVE_TIMES = 500


@dataclass(frozen=True)
class Row:
    id: str
    key: str
    digest: str
    method: str
    state: str
    payload: str | None
    provider_id: str | None
    accepted_at: float
    submitted_at: float | None
    solved_at: float | None
    expires_at: float | None
    gone_at: float | None
    resubmits: int
    solution: str | None
    error_code: str | None
    error_class: str | None


_COLUMNS = (
    "id, idempotency_key, digest, method, state, payload, provider_id, accepted_at, submitted_at, solved_at,"
    " expires_at, gone_at, resubmits, solution, error_code, error_class"
)

_DATES = ("accepted_at", "submitted_at", "solved_at", "expires_at", "final_at", "gone_at")
# Less than this is drift, and nothing is judged that exactly.
CLOCK_STEP_S = 1.0


@dataclass(frozen=True)
class Final:
    state: str
    at: float
    solution: str | None = None
    solved_at: float | None = None
    expires_at: float | None = None
    error_code: str | None = None
    error_class: str | None = None


@dataclass(frozen=True)
class Books:
    """Counters of one transaction."""

    totals: dict[str, int]
    failures: dict[str, int]
    histogram: list[int]
    open: dict[str, int]
    unfetched: int
    oldest_at: float | None


def digest_of(document: Mapping[str, str]) -> str:
    """Equal JSON objects have equal digests, whatever the order of their fields."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(exc: sqlite3.Error) -> int:
    """The primary code; an extended one has more in its upper bytes."""
    return int(getattr(exc, "sqlite_errorcode", 0) or 0) & 0xFF


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = None  # of the last write that failed, until a trial succeeds
        self.damage: str | None = None  # found while it was open
        self._lazy: dict[str, int] = {}
        self._erased = True  # an earlier process may have left something in the log
        found = schema.inspect(path)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._file = _identity(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
        try:
            self._prepare(found)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, found: Stamp) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        self._migrate(found)
        stamp = self._meta_all()
        self.id = stamp["id"]
        self.schema = int(stamp["schema"])
        self.min_reader = int(stamp["min_reader"])

    def _migrate(self, found: Stamp) -> None:
        steps = [step for step in schema.STEPS if step.schema > found.schema]
        if not steps:
            return
        if found.schema:
            schema.back_up(self._db, self.path, found.schema)
        else:
            self._db.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        with self._write() as db:
            for step in steps:
                for statement in step.statements:
                    db.execute(statement)
            if not found.schema:
                self._set(db, "id", uuid.uuid4().hex)
            self._set(db, "schema", str(steps[-1].schema))
            self._set(db, "min_reader", str(max(found.min_reader, *(step.min_reader for step in steps))))

    def close(self) -> None:
        self._db.close()

    # -- transactions

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """Raises NotWrittenError where it is certain that nothing was written."""
        committing = False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            committing = True
            self._commit()
        except BaseException as exc:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.IntegrityError) or not isinstance(exc, sqlite3.Error):
                raise
            self._note(exc)
            self.error = str(exc)
            # A commit that found no room has not written its last frame; after another error it may have.
            if not committing or _code(exc) == sqlite3.SQLITE_FULL:
                raise NotWrittenError(str(exc)) from exc
            raise

    def _commit(self) -> None:
        self._db.execute("COMMIT")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            self._note(exc)
            raise

    def _note(self, exc: sqlite3.Error) -> None:
        undecodable = "Could not decode" in str(exc)
        if undecodable or _code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self.damage = str(exc)

    @property
    def writable(self) -> bool:
        return self.error is None

    @property
    def in_place(self) -> bool:
        """Whether the file that we write is still the one that the next process will find."""
        return _identity(self.path) == self._file

    def try_write(self, size: int) -> None:
        """Proves that a task of SIZE bytes could be written, after a write has failed."""
        with self._write() as db:
            self._set(db, "trial", "x" * size)
        with self._write() as db:
            db.execute("DELETE FROM meta WHERE key = 'trial'")
        self.error = None

    def scrub(self) -> None:
        """Empties the write-ahead log: what was erased in the file still stands there."""
        if self._erased:
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._erased = bool(busy)

    @staticmethod
    def _set(db: sqlite3.Connection, key: str, value: str) -> None:
        db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    @staticmethod
    def _add(db: sqlite3.Connection, name: str, count: int = 1) -> None:
        db.execute(
            "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, count),
        )

    # -- memory of the worker itself

    def _meta_all(self) -> dict[str, str]:
        return dict(self._read("SELECT key, value FROM meta"))

    def meta(self, key: str) -> str | None:
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def count_start(self, kernel: str, offset: float) -> int:
        """How many processes opened this journal before. OFFSET: the date at which the machine's boot clock was 0."""
        earlier = int(self.meta("starts") or 0)
        with self._write() as db:
            self._set(db, "starts", str(earlier + 1))
            db.execute("DELETE FROM probes WHERE answer IS NULL")
            self._follow_clock(db, earlier, kernel, offset)
        return earlier

    def _follow_clock(self, db: sqlite3.Connection, earlier: int, kernel: str, offset: float) -> None:
        """Moves all dates along when the wall clock was set since the last process: nothing ages by that.

        Only within one boot of the machine can a step be told from time that went by. A release that does not keep
        this note may have run in between; then the number of its start does not fit, and nothing is moved.
        """
        noted = json.loads(self.meta("clock") or "{}")
        if noted.get("kernel") == kernel != UNKNOWN_BOOT and noted.get("starts") == earlier:
            step = offset - float(noted["offset"])
            if abs(step) >= CLOCK_STEP_S:
                moved = ", ".join(f"{name} = {name} + :step" for name in _DATES)
                db.execute(f"UPDATE tasks SET {moved}", {"step": step})  # noqa: S608
                db.execute("UPDATE probes SET begun_at = begun_at + :step", {"step": step})
        note = {"kernel": kernel, "offset": offset, "starts": earlier + 1}
        self._set(db, "clock", json.dumps(note))

    def save_drain(self, drain: Mapping[str, Any] | None, serving_version: str | None = None) -> None:
        """The drain, or none; with a version: from now on that version serves."""
        with self._write() as db:
            if drain is None:
                db.execute("DELETE FROM meta WHERE key = 'drain'")
            else:
                self._set(db, "drain", json.dumps(drain))
            if serving_version is not None:
                self._set(db, "last_served", serving_version)

    def load_drain(self) -> dict[str, Any] | None:
        text = self.meta("drain")
        return None if text is None else dict(json.loads(text))

    # -- tasks

    def by_key(self, key: str) -> Row | None:
        return self._one("idempotency_key", key)

    def by_id(self, task_id: str) -> Row | None:
        return self._one("id", task_id)

    def _one(self, column: str, value: str) -> Row | None:
        rows = self._read(f"SELECT {_COLUMNS} FROM tasks WHERE {column} = ?", (value,))  # noqa: S608
        return Row(*rows[0]) if rows else None

    def open_tasks(self) -> list[Row]:
        query = f"SELECT {_COLUMNS} FROM tasks WHERE final_at IS NULL ORDER BY accepted_at"  # noqa: S608
        return [Row(*row) for row in self._read(query)]

    def submits_since(self, at: float) -> list[float]:
        rows = self._read("SELECT submitted_at FROM tasks WHERE submitted_at > ?", (at,))
        return sorted(row[0] for row in rows)

    def accept(self, *, task_id: str, key: str, digest: str, method: str, payload: str, at: float) -> None:
        with self._write() as db:
            db.execute(
                "INSERT INTO tasks (id, idempotency_key, digest, method, state, payload, accepted_at)"
                " VALUES (?, ?, ?, ?, 'accepted', ?, ?)",
                (task_id, key, digest, method, payload, at),
            )
            self._add(db, "accepted")

    def submitting(self, task_id: str) -> None:
        self._step("UPDATE tasks SET state = 'submitting' WHERE id = ? AND state = 'accepted'", (task_id,))

    def not_submitted(self, task_id: str, resubmit: bool = False) -> None:
        """Back to accepted: the provider certainly has no such task, or the operator chose to risk it."""
        self._step(
            "UPDATE tasks SET state = 'accepted', resubmits = resubmits + ? WHERE id = ? AND state = 'submitting'",
            (int(resubmit), task_id),
        )

    def polling(self, task_id: str, provider_id: str, at: float) -> None:
        self._step(
            "UPDATE tasks SET state = 'polling', provider_id = ?, submitted_at = ?, payload = NULL"
            " WHERE id = ? AND state = 'submitting'",
            (provider_id, at, task_id),
            count="provider_submits",
        )

    def _step(self, statement: str, values: Sequence[Any], count: str | None = None) -> None:
        with self._write() as db:
            if db.execute(statement, values).rowcount != 1:
                raise RuntimeError("a step out of order was refused by the journal")
            if count:
                self._add(db, count)
        self._erased = True

    def finish(self, task_id: str, final: Final, solve_s: float | None = None) -> None:
        """Once: finals never change."""
        with self._write() as db:
            changed = db.execute(
                "UPDATE tasks SET state = ?, final_at = ?, solution = ?, solved_at = ?, expires_at = ?,"
                " error_code = ?, error_class = ?, payload = NULL WHERE id = ? AND final_at IS NULL",
                (
                    final.state,
                    final.at,
                    final.solution,
                    final.solved_at,
                    final.expires_at,
                    final.error_code,
                    final.error_class,
                    task_id,
                ),
            ).rowcount
            if changed:
                self._add(db, final.state)
                if final.state == "failed" and final.error_class in CLASSES:
                    self._add(db, FAILED + final.error_class)
                self._keep_solve_time(db, final.state, solve_s)
        self._erased = True

    @staticmethod
    def _keep_solve_time(db: sqlite3.Connection, state: str, solve_s: float | None) -> None:
        if state != "succeeded" or solve_s is None:
            return
        Journal._add(db, f"{SOLVED}{histogram.bucket(solve_s)}")
        done = db.execute("SELECT value FROM totals WHERE name = 'succeeded'").fetchone()[0]
        db.execute("INSERT OR REPLACE INTO solve_times VALUES (?, ?)", (done % KEPT_SOLVE_TIMES, solve_s))

    def fetched(self, task_id: str, at: float) -> None:
        """The client has its answer: only the key is remembered from now on."""
        with self._write() as db:
            db.execute(
                "UPDATE tasks SET gone_at = ?, solution = NULL"
                " WHERE id = ? AND final_at IS NOT NULL AND gone_at IS NULL",
                (at, task_id),
            )
        self._erased = True

    def tidy(self, at: float, result_ttl: float, key_ttl: float) -> None:
        with self._write() as db:
            db.execute(
                "UPDATE tasks SET gone_at = ?, solution = NULL"
                " WHERE final_at IS NOT NULL AND gone_at IS NULL AND final_at <= ?",
                (at, at - result_ttl),
            )
            db.execute("DELETE FROM tasks WHERE gone_at IS NOT NULL AND accepted_at <= ?", (at - key_ttl,))
            db.execute("DELETE FROM probes WHERE answer IS NOT NULL AND begun_at <= ?", (at - key_ttl,))

    # -- probes

    def begin_probe(self, request_id: str, at: float) -> None:
        with self._write() as db:
            db.execute("INSERT INTO probes VALUES (?, ?, NULL)", (request_id, at))
            self._add(db, "probes")

    def probe_submitted(self) -> None:
        with self._write() as db:
            self._add(db, "provider_submits")

    def end_probe(self, request_id: str, answer: Mapping[str, Any]) -> None:
        with self._write() as db:
            db.execute("UPDATE probes SET answer = ? WHERE request_id = ?", (json.dumps(answer), request_id))

    def probe_answer(self, request_id: str) -> dict[str, Any] | None:
        rows = self._read("SELECT answer FROM probes WHERE request_id = ?", (request_id,))
        return dict(json.loads(rows[0][0])) if rows and rows[0][0] is not None else None

    def adopt_probes(
        self, probes: Mapping[str, tuple[float, Mapping[str, Any] | None]], submits: int, calls: int
    ) -> None:
        """The probes that this process made before it had a journal."""
        with self._write() as db:
            rows = [(request_id, at, json.dumps(answer)) for request_id, (at, answer) in probes.items() if answer]
            db.executemany("INSERT OR REPLACE INTO probes VALUES (?, ?, ?)", rows)
            self._add(db, "probes", len(probes))
            self._add(db, "provider_submits", submits)
            self._add(db, RES_CALLS, calls)

    # -- books

    def count_later(self, name: str) -> None:
        """A counter not worth a commit of its own; it is shown only once it is committed."""
        self._lazy[name] = self._lazy.get(name, 0) + 1

    def flush(self) -> None:
        if not self._lazy:
            return
        with self._write() as db:
            for name, count in self._lazy.items():
                self._add(db, name, count)
        self._lazy.clear()

    def total(self, name: str) -> int:
        rows = self._read("SELECT value FROM totals WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else 0

    def books(self) -> Books:
        self._db.execute("BEGIN")
        try:
            stored = dict(self._read("SELECT name, value FROM totals"))
            counts = dict(self._read("SELECT state, count(*) FROM tasks WHERE final_at IS NULL GROUP BY state"))
            oldest = self._read("SELECT min(accepted_at) FROM tasks WHERE final_at IS NULL")[0][0]
            kept = self._read("SELECT count(*) FROM tasks WHERE final_at IS NOT NULL AND gone_at IS NULL")[0][0]
        finally:
            self._db.execute("COMMIT")
        return Books(
            totals={name: int(stored.get(name, 0)) for name in TOTALS},
            failures={name: int(stored.get(FAILED + name, 0)) for name in CLASSES},
            histogram=[int(stored.get(f"{SOLVED}{number}", 0)) for number in range(histogram.BUCKETS)],
            open={state: int(counts.get(state, 0)) for state in OPEN},
            unfetched=int(kept),
            oldest_at=oldest,
        )

    def solve_times(self) -> list[float]:
        return [row[0] for row in self._read("SELECT seconds FROM solve_times ORDER BY seconds")]
