# SPDX-License-Identifier: GPL-3.0-or-later
"""The status document, from the worker and its journal as they are at this instant."""

from __future__ import annotations

import math
import os
import sqlite3
from typing import Any

from . import drain as drains
from .clock import rfc3339
from .drain import Moment
from .journal import Books, Journal
from .lifecycle import FAILED, STOPPING, Worker

FEATURES = [
    "drain.lease",
    "drain.persist",
    "probe",
    "wait",
    "handover",
    "verify",
    "peer_log",
    "solve_histogram",
    "failure_classes",
    "standby",
]


def build(worker: Worker) -> dict[str, Any]:
    moment = Moment(worker.clock.boot(), worker.clock.now())
    journal = worker.journal if worker.phase != FAILED else None
    books, times = _read(journal)
    if journal is None and worker.phase == STOPPING:
        books = worker.left_books
    return {
        "schema": "solver.worker.status/1",
        "api": {"versions": ["v1"], "features": FEATURES},
        "instance": {
            "name": worker.config.worker.name,
            "version": worker.version,
            "release": worker.release,
            "boot_id": worker.boot_id,
            "pid": os.getpid(),
            "started_at": rfc3339(worker.started_at),
            "restarts": worker.restarts,
        },
        "state": worker.state,
        "since": rfc3339(worker.since),
        "seq": worker.seq,
        "accepting": worker.accepting,
        "refusal": None if worker.refusal is None else vars(worker.refusal),
        "safe_to_stop": worker.safe_to_stop,
        "idle": worker.open_tasks == 0 and not worker.probing,
        "drain": drains.describe(worker.drain, moment),
        "tasks": _tasks(books, moment.now),
        "totals": None if books is None else books.totals,
        "failures": None if books is None else books.failures,
        "solve_times": _solve_times(times),
        "solve_histogram": None if books is None else books.histogram,
        "provider": worker.provider.describe() if books is not None or worker.standby else None,
        "journal": _journal(journal),
        "standby": None if worker.standby is None else worker.standby.describe(moment),
        "failure": None if worker.failure is None else vars(worker.failure),
    }


def _read(journal: Journal | None) -> tuple[Books | None, list[float]]:
    try:
        return (None, []) if journal is None else (journal.books(), journal.solve_times())
    except sqlite3.Error:
        return None, []


def _tasks(books: Books | None, now: float) -> dict[str, Any] | None:
    if books is None:
        return None  # unknown is not 0
    return {
        "open": sum(books.open.values()),
        **books.open,
        "unfetched": books.unfetched,
        "oldest_age_s": None if books.oldest_at is None else round(max(now - books.oldest_at, 0.0), 3),
    }


def _solve_times(times: list[float]) -> dict[str, Any] | None:
    if not times:
        return None
    return {
        "count": len(times),
        "p50_s": round(percentile(times, 50), 3),
        "p99_s": round(percentile(times, 99), 3),
    }


def percentile(ordered: list[float], share: int) -> float:
    """Nearest rank: always a time that was really measured."""
    return ordered[max(math.ceil(len(ordered) * share / 100) - 1, 0)]


def _journal(journal: Journal | None) -> dict[str, Any] | None:
    if journal is None:
        return None
    return {
        "id": journal.id,
        "schema": journal.schema,
        "min_reader": journal.min_reader,
        "writable": journal.writable,
    }
