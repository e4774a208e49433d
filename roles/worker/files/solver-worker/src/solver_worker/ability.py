# SPDX-License-Identifier: GPL-3.0-or-later
"""Could a new task be kept? What is in the way is told to clients, routers and the fleet before a task meets it."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass

from . import logs
from .journal import Journal

# Below this nothing new is taken, so that what was taken can end: a write-ahead log between two checkpoints fits in.
NEEDED_BYTES = 4 << 20
# Room must be clearly there before tasks come again, or the worker comes and goes with each of them.
AMPLE_BYTES = 2 * NEEDED_BYTES


@dataclass(frozen=True)
class Refusal:
    code: str
    message: str


@dataclass(frozen=True)
class Seen:
    error: str | None  # of the journal's last write
    in_place: bool  # the journal is where the next process looks for it
    free: int | None  # bytes of room for us, where that can be told


def judge(seen: Seen, before: Refusal | None) -> Refusal | None:
    if not seen.in_place:
        return Refusal("journal_moved", "the journal is not in worker.state_dir any more; put it back, or restart")
    if seen.error is not None:
        return Refusal("journal_unwritable", f"writing the journal: {seen.error}; make room in worker.state_dir")
    needed = AMPLE_BYTES if before is not None and before.code == "disk_full" else NEEDED_BYTES
    if seen.free is not None and seen.free < needed:
        return Refusal("disk_full", f"less than {needed >> 20} MiB are free in worker.state_dir; make room there")
    return None


def look(journal: Journal, task_bytes: int) -> Seen:
    """After a failed write the proof is a write as long as the longest task."""
    if journal.error is not None:
        try:
            journal.try_write(task_bytes)
        except sqlite3.Error as exc:
            logs.warning("the journal cannot be written", cause=str(exc))
    return Seen(journal.error, journal.in_place, _free(journal))


def _free(journal: Journal) -> int | None:
    try:
        found = os.statvfs(journal.path.parent)
    except OSError:
        return None
    # A file system that does not count its blocks says 0 of 0.
    return found.f_bavail * found.f_frsize if found.f_blocks else None
