# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this journal whole? Only reads: what is damaged is refused as it is, and a person decides.

SQLite notices much by itself, but it serves a page whose bits have flipped, and drops without a word what follows a
flipped bit in its write-ahead log.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from . import drain, schema
from .errors import JournalRefusedError

# A file that takes longer than this is opened half examined: nobody is helped by a worker that does not start.
AT_MOST_S = 10.0
_WAL_HEADER, _FRAME_HEADER = 32, 24
_FILE_FORMAT = struct.Struct(">4I")  # page number, pages after the commit or 0, two salts
_STATES = "'accepted', 'submitting', 'polling', 'succeeded', 'failed', 'expired', 'uncertain'"

# What a task of ours cannot be: (condition of a damaged row, what is said of it).
_IMPOSSIBLE = (
    (f"state NOT IN ({_STATES})", "a state that there is not"),
    ("(final_at IS NULL) <> (state IN ('accepted', 'submitting', 'polling'))", "an end that does not fit its state"),
    ("typeof(accepted_at) <> 'real' OR typeof(id) <> 'text' OR typeof(idempotency_key) <> 'text'", "no id or date"),
    ("length(digest) <> 64 OR digest GLOB '*[^0-9a-f]*'", "no digest"),
    ("state = 'polling' AND (provider_id IS NULL OR provider_id GLOB '*[^0-9]*')", "no id of the provider"),
    ("state = 'accepted' AND payload IS NULL", "no payload"),
)


def examine(path: Path, clock: Callable[[], float] = time.monotonic) -> None:
    """Raises JournalRefusedError with the cause; a file that is not there is whole."""
    stamp = schema.inspect(path)
    if not stamp.schema:
        return
    try:
        with closing(schema.connect_to_read(path)) as db:
            ends = clock() + AT_MOST_S
            db.set_progress_handler(lambda: int(clock() >= ends), 10_000)
            found = next(_defects(db, path, stamp.schema), None)
    except (sqlite3.Error, OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            return
        raise schema.refused(path, exc, "journal_damaged") from exc
    if found:
        raise JournalRefusedError("journal_damaged", f"opening the journal {path}: {found}; {schema.WAY_BACK}")


def _defects(db: sqlite3.Connection, path: Path, known: int) -> Iterator[str]:
    log = schema.log_of(path)
    db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # now SQLite has read the log
    if log.exists():
        yield from damaged_log(log.read_bytes(), _valid_frames(path))
    yield from _lacking(db, known)
    # Not quick_check: a key that differs in its index is one that a worker would take, and bill, a second time.
    for (text,) in db.execute("PRAGMA integrity_check(1)"):
        if text != "ok":
            yield str(text).replace("\n", " ")
    for condition, what in _IMPOSSIBLE:
        row = db.execute(f"SELECT rowid FROM tasks WHERE {condition} LIMIT 1").fetchone()  # noqa: S608
        if row:
            yield f"a task in it has {what} (row {row[0]})"
    yield from _bad_meta(dict(db.execute("SELECT key, value FROM meta")))
    if db.execute("SELECT 1 FROM totals WHERE typeof(value) <> 'integer' OR value < 0").fetchone():
        yield "a total in it is no count"


def _objects(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Tables, indices and columns, by name."""
    found = {(str(kind), str(name)) for kind, name in db.execute("SELECT type, name FROM sqlite_schema")}
    for table in [name for kind, name in found if kind == "table"]:
        columns = db.execute("SELECT name FROM pragma_table_info(?)", (table,))
        found |= {(f"column of {table}", str(column)) for (column,) in columns}
    return found


def _lacking(db: sqlite3.Connection, known: int) -> Iterator[str]:
    with closing(sqlite3.connect(":memory:")) as model:
        for step in schema.STEPS:
            if step.schema <= known:
                for statement in step.statements:
                    model.execute(statement)
        for kind, name in sorted(_objects(model) - _objects(db), key=lambda one: (one[0] != "table", one)):
            yield f"the {kind} {name} is missing"


def _bad_meta(meta: dict[str, str]) -> Iterator[str]:
    if not meta.get("id"):
        yield "it has no id"
    if int(meta.get("starts", 0)) < 0:
        yield "its number of starts is none"
    _bounds(dict(json.loads(meta.get("clock", "{}")).items()), ("offset", "starts"))
    if "drain" in meta:
        saved = json.loads(meta["drain"])
        drain.describe(drain.restore(saved, 0.0, ""), drain.Moment(0.0, 0.0))
        _bounds(saved, ("saved", "requested", "renewed", "lease_s", "grace_s"))


def _bounds(document: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in document and not abs(float(document[name])) < 1e12:
            raise ValueError(f"{name} is beyond all bounds")


# -- the write-ahead log


def _valid_frames(path: Path) -> int:
    """How many frames SQLite took over from the log: it notes that in the index beside it."""
    index = path.with_name(path.name + "-shm")
    with suppress(OSError, struct.error):
        # Native byte order: version, unused, change counter, four bytes of flags, and then the number of frames.
        version, initialised, frames = struct.unpack_from("=I8xB3xI", index.read_bytes()[:48])
        if version == 3007000 and initialised:
            return int(frames)
    return 1 << 32


def damaged_log(log: bytes, valid: int) -> Iterator[str]:
    """What a crash leaves unfinished is one transaction; commits beyond it were dropped because of damage."""
    if len(log) <= _WAL_HEADER + _FRAME_HEADER:
        return
    if not valid and not _header_is_whole(log):
        yield "the header of its write-ahead log is damaged, and what follows would be lost"
        return
    (size,) = struct.unpack_from(">I", log, 8)
    salts = log[16:24]
    frame = _FRAME_HEADER + (size if size > 1 else 65536)
    commits = 0
    for at in range(_WAL_HEADER + valid * frame, len(log) - frame + 1, frame):
        _page, committed, _salt, _other = _FILE_FORMAT.unpack_from(log, at)
        commits += bool(committed) and log[at + 8 : at + 16] == salts
    if commits > 1:
        yield f"its write-ahead log is damaged after {valid} frames, and {commits} commits would be lost"


def _header_is_whole(log: bytes) -> bool:
    (magic,) = struct.unpack_from(">I", log)
    if magic not in (0x377F0682, 0x377F0683):
        return False
    words = struct.unpack_from((">" if magic & 1 else "<") + "6I", log)
    first = second = 0
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack_from(">2I", log, 24)
