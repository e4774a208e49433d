# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a worker's journal for the audit: read only, beside a running worker or after its end."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

_TRIES = 5


@dataclass(frozen=True)
class Entry:
    """One task in a journal; gone: its result was fetched or aged out."""

    key: str
    state: str
    solution: str | None
    gone: bool


@dataclass
class JournalBook:
    tasks: dict[str, Entry] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    # Tasks accepted and not final.
    open: int = 0

    def balanced(self) -> bool:
        """The equation that every journal keeps at any instant."""
        finals = sum(self.totals.get(name, 0) for name in ("succeeded", "failed", "uncertain", "expired"))
        return self.totals.get("accepted", 0) == finals + self.open


class JournalError(Exception):
    """Names the file and the cause."""


def read(path: Path) -> JournalBook:
    """One transaction. A worker that starts or stops meanwhile moves the log: try again."""
    problem: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.1)
        try:
            return _read(path)
        except (sqlite3.Error, OSError) as error:
            problem = error
    raise JournalError(f"reading the journal {path}: {problem}") from problem


def _read(path: Path) -> JournalBook:
    # "immutable" leaves no trace, but is true only while no log lies beside the file.
    option = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.resolve(strict=True).as_uri()}?{option}", uri=True, timeout=5)) as db:
        db.row_factory = sqlite3.Row
        db.execute("BEGIN")
        rows = db.execute("SELECT * FROM tasks").fetchall()
        totals = db.execute("SELECT name, value FROM totals").fetchall()
    entries = [_entry(row) for row in rows]
    return JournalBook(
        tasks={entry.key: entry for entry in entries},
        totals={row["name"]: row["value"] for row in totals},
        open=sum(row["final_at"] is None for row in rows),
    )


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        key=row["idempotency_key"],
        state=row["state"],
        solution=row["solution"],
        gone=row["gone_at"] is not None,
    )
