# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The file of the rollout's record, the lock beside it, and the history of its verdicts.

The record lies beside the worker's links. It is changed only under an exclusive lock on the file next to it, and
replaced in one step, so that every reader sees a whole one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from typing import Any, Callable, Iterator

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, remedy
from ansible_collections.solver.fleet.plugins.module_utils._files import (
    FULL,
    TEMPORARY,
    open_lock,
    read_json,
    read_plain,
    write_file,
)
from ansible_collections.solver.fleet.plugins.module_utils._json import plain_json
from ansible_collections.solver.fleet.plugins.module_utils._record import (
    FOLDER,
    Now,
    defect,
    empty,
    in_words,
    is_ours,
    lock_state,
    now,
)

KEEP_HISTORY = 20
# A module that is at work on the worker keeps others out for so long at most.
BUSY_S = 40.0
_POLL_S = 0.1
# What tells one verdict from another; the rest may be long.
_HEAD = ("rollout_id", "run_id", "kind", "target", "verdict", "started_at", "ended_at", "reasons", "who")
_MOST_SOURCES = 10
_MODE = 0o640
# Of a fleet of thousands.
_VERDICT_BYTES = 32 << 20


class RecordFile:
    """The record of one worker, and the lock file that guards it."""

    def __init__(self, worker_dir: str) -> None:
        self.worker_dir = worker_dir
        self.folder = os.path.join(worker_dir, FOLDER)
        self.path = os.path.join(self.folder, "record.json")
        self.lock_path = os.path.join(self.folder, "lock")
        self.history = os.path.join(self.folder, "history")

    def read(self) -> Json | None:
        """The record; None if there is none. What is there but is none is an error: it may hold a lock."""
        try:
            document = plain_json(read_plain(self.path))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            # Nothing is wrong with the record; whoever asks is not the one who may.
            raise StepError(
                "denied", f"reading the rollout's record '{self.path}': {error.strerror}; {remedy(error, '')}",
                {"path": self.path}) from error
        except (OSError, ValueError) as error:
            raise self._bad(str(error)) from error
        why = defect(document)
        if why:
            raise self._bad(why)
        return dict(empty(), **{name: value for name, value in document.items() if value is not None})

    def _bad(self, why: str) -> StepError:
        return StepError(
            "bad_record",
            f"reading the rollout's record '{self.path}': {why}; look who wrote it, and remove it when no rollout runs",
            {"path": self.path},
        )

    @contextlib.contextmanager
    def guarded(
        self, exclusive: bool, wait: float = BUSY_S,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[int]:
        """Hold the lock file: exclusively to change the record, shared while a module is at work on the worker."""
        handle = self._open(exclusive)
        try:
            self._flock(handle, exclusive, clock() + wait, clock, sleep)
            yield handle
        finally:
            os.close(handle)

    def _open(self, create: bool) -> int:
        try:
            if not create:
                return open_lock(self.lock_path, create=False)
            os.makedirs(self.folder, mode=0o750, exist_ok=True)
            return open_lock(self.lock_path, create=True, mode=_MODE)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StepError:
        return StepError(
            "no_space" if error.errno in FULL else "unwritable",
            f"writing the rollout's record at '{self.folder}': {error.strerror}; " + remedy(
                error, "set worker_dir (solver_worker_dir) to a directory that this user may write, and make room "
                       "there"),
            {"path": self.folder, "option": "worker_dir"},
        )

    def _flock(
        self, handle: int, exclusive: bool, until: float, clock: Callable[[], float], sleep: Callable[[float], None],
    ) -> None:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise self._unwritable(error) from error
            if clock() >= until:
                raise StepError(
                    "busy", f"locking '{self.lock_path}': another module is at work on this worker; run it again later",
                    {"path": self.lock_path})
            sleep(_POLL_S)

    def exists(self) -> bool:
        """Whether anything was ever locked here. Only what takes the lock may make the folder."""
        return os.path.exists(self.lock_path)

    def write(self, record: Json) -> None:
        try:
            self._sweep()
            write_file(self.path, _text(record), _MODE)
        except OSError as error:
            raise self._unwritable(error) from error

    def _sweep(self) -> None:
        """Remove what writers left that were killed; nobody else writes under the exclusive lock."""
        for entry in os.listdir(self.folder):
            if entry.startswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, entry))

    def append_history(self, verdict: Json, at: Now) -> None:
        """Keep the verdict, and of the old ones the newest."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{at.wall}-{verdict.get('rollout_id')}-{verdict.get('run_id')}")
        newest = f"{name[:200]}.json"
        try:
            os.makedirs(self.history, mode=0o750, exist_ok=True)
            write_file(os.path.join(self.history, newest), _text(verdict), _MODE)
            # The names sort by the wall clock; where that was set back, the new one is still kept.
            old = sorted(entry for entry in os.listdir(self.history) if entry != newest)
            for entry in old[: max(0, len(old) - (KEEP_HISTORY - 1))]:
                os.unlink(os.path.join(self.history, entry))
        except OSError as error:
            raise self._unwritable(error) from error

    def heads(self, count: int) -> list[Json]:
        """The heads of the newest verdicts; one that cannot be read is left out, it decides nothing."""
        found = []
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(self.history), reverse=True)[:count]:
                head = _head(os.path.join(self.history, entry))
                found += [head] if head else []
        return found

    def kept(self, run_id: str) -> Json | None:
        """The whole verdict of a run; None where it is not among those that are kept."""
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(self.history), reverse=True):
                verdict = read_json(os.path.join(self.history, entry), _VERDICT_BYTES)
                if verdict is not None and verdict.get("run_id") == run_id:
                    return verdict
        return None

    @contextlib.contextmanager
    def fence(self, run_id: str | None) -> Iterator[int | None]:
        """Let a module work only while its run holds the rollout's lock, and keep others from taking it meanwhile.

        A process that is given the descriptor keeps them out for as long as it lives.
        """
        if not run_id:
            yield None
            return
        if not self.exists():
            raise _fenced(None)
        with self.guarded(exclusive=False) as handle:
            record = self.read()
            if not is_ours(record, run_id):
                raise _fenced((record or {}).get("lock"))
            yield handle

    @contextlib.contextmanager
    def alone(self, wait: float) -> Iterator[int | None]:
        """Be the only one that stops and starts this worker: a restart may go on after the module that began it."""
        if not os.path.isdir(self.worker_dir):
            yield None
            return
        handle = os.open(self.worker_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flock(handle, True, time.monotonic() + wait, time.monotonic, time.sleep)
            yield handle
        finally:
            os.close(handle)


def _head(path: str) -> Json | None:
    verdict = read_json(path, _VERDICT_BYTES)
    if verdict is None:
        return None
    settings, workers = verdict.get("settings"), verdict.get("workers")
    return dict(
        {name: verdict.get(name) for name in _HEAD},
        reason=settings.get("solver_reason") if isinstance(settings, dict) else None,
        **{"from": _sources(workers) if isinstance(workers, list) else []})


def _sources(workers: list[Any]) -> list[str]:
    """The versions that they came from; a few, of a fleet that is well."""
    found = {str(own["from"]) for own in workers if isinstance(own, dict) and own.get("from")}
    return sorted(found)[:_MOST_SOURCES]


def _fenced(holder: Json | None) -> StepError:
    who = in_words(holder, now()) if holder else "nobody holds it"
    return StepError(
        "fenced", f"working on the worker: this run does not hold the rollout's lock ({who}); it must not go on",
        {"holder": holder})


def _text(document: Json) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8")


def look(worker_dir: str) -> Json:
    """What worker_info tells of the record."""
    try:
        record = RecordFile(worker_dir).read()
    except StepError as error:
        return {"rollout": None, "lock_state": "unknown", "record_problem": error.message}
    return {"rollout": record, "lock_state": lock_state(record, now())}
