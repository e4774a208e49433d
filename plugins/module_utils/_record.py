# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The rollout's record on a worker: who may touch it, what it came from, and what became of it.

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
from datetime import datetime, timezone
from typing import Any, Callable, Iterator, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._files import Json, StepError, write_file, write_json
from ansible_collections.solver.fleet.plugins.module_utils._result import elapsed_since, host_clock

SCHEMA = "solver.rollout/1"
FOLDER = "rollout"
KEEP_HISTORY = 20
KEEP_SUPERSEDED = 5
# A module that is at work on the worker keeps others out for so long at most.
BUSY_S = 40.0
_POLL_S = 0.1
_MAX_BYTES = 1 << 20


class Now(NamedTuple):
    """A moment, by the wall and by the clock that is never stepped."""

    wall: str
    clock: Json


def now() -> Now:
    return Now(datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), host_clock())


class Claim(NamedTuple):
    """Who wants the lock, and for what."""

    rollout_id: str
    run_id: str
    kind: str = "update"
    target: str | None = None
    release_from: Json | None = None
    release_to: Json | None = None
    reason: str = ""
    job: str | None = None
    user: str | None = None
    controller: Json | None = None
    ttl: float = 1800.0
    dead_runs: tuple[str, ...] = ()
    steal: bool = False
    expected_seq: int | None = None


# --- decisions: pure, a record in, a record out ---


def empty() -> Json:
    return {"schema": SCHEMA, "seq": 0, "roster": [], "rollout": None, "lock": None, "request": None, "superseded": []}


def lock_state(record: Json | None, at: Now) -> str:
    """C(free), C(held), or C(expired): nobody renewed it in time."""
    lock = (record or {}).get("lock")
    if not lock:
        return "free"
    return "expired" if lock_age(lock, at) > float(lock.get("ttl_s") or 0) else "held"


def lock_age(lock: Json, at: Now) -> float:
    """Seconds since the last renewal: by the steady clock within one boot of the host, else by the wall."""
    renewed = lock.get("renewed_clock") or {}
    if renewed.get("host_boot_id") and renewed["host_boot_id"] == at.clock.get("host_boot_id"):
        return elapsed_since(renewed, at.clock)
    then = _seconds(lock.get("renewed_at"))
    wall = _seconds(at.wall)
    return max(0.0, wall - then) if then is not None and wall is not None else 0.0


def _seconds(text: Any) -> float | None:
    try:
        parsed = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
    return parsed.replace(tzinfo=timezone.utc).timestamp()


def refusal(record: Json, claim: Claim, at: Now) -> StepError | None:
    """Why the claim cannot have the lock; None if it can."""
    if claim.expected_seq is not None and claim.expected_seq != record["seq"]:
        return StepError(
            "changed",
            "locking the worker: another rollout changed its record since the census; run the same command again",
            {"expected_seq": claim.expected_seq, "seq": record["seq"]},
        )
    lock: Json = record.get("lock") or {}
    free = lock_state(record, at) != "held" or claim.steal
    if free or lock["run_id"] == claim.run_id or lock["run_id"] in claim.dead_runs:
        return None
    remedy = "known to be dead, set solver_lock_steal: true with a solver_reason"
    text = f"locking the worker: {in_words(lock, at)}; wait for it (solver_lock_wait), or, when it is {remedy}"
    return StepError("held", text, {"holder": lock})


def in_words(lock: Json, at: Now) -> str:
    """Say who holds a lock."""
    host = (lock.get("controller") or {}).get("host")
    who = f"AWX job {lock['job']}" if lock.get("job") else f"{lock.get('user') or '?'} on {host or '?'}"
    reason = f" ({lock['reason']})" if lock.get("reason") else ""
    return (f"rollout {lock.get('rollout_id')} of {who}{reason} holds it since {lock.get('acquired_at')}, "
            f"renewed {lock_age(lock, at):.0f} s ago")


def held(record: Json, claim: Claim, at: Now) -> Json:
    """The record with the claim's lock, and its rollout where the claim moves the worker at all."""
    old = record.get("lock") or {}
    acquired = old.get("acquired_at") if old.get("run_id") == claim.run_id else at.wall
    lock = {
        "run_id": claim.run_id, "rollout_id": claim.rollout_id, "job": claim.job, "user": claim.user,
        "reason": claim.reason, "controller": claim.controller or {}, "acquired_at": acquired,
        "renewed_at": at.wall, "renewed_clock": at.clock, "ttl_s": claim.ttl,
    }
    out = dict(record, seq=record["seq"] + 1, lock=lock, request=None)
    if claim.release_to:
        out.update(_begun(record, claim, at))
    return out


def _begun(record: Json, claim: Claim, at: Now) -> Json:
    """The rollout that the lock is for. The same again keeps where it came from; another one replaces it."""
    own: Json = record.get("rollout") or {}
    goes_on = bool(own) and own["id"] == claim.rollout_id and own.get("to") == claim.release_to
    begun: Json = {
        "id": claim.rollout_id, "kind": claim.kind, "target": claim.target, "reason": claim.reason,
        "from": own["from"] if goes_on else claim.release_from, "to": claim.release_to,
        "started_at": own["started_at"] if own and own["id"] == claim.rollout_id else at.wall,
        "ended_at": None, "verdict": None, "outcome": None, "cause": None, "outcome_reason": None,
    }
    superseded = list(record.get("superseded") or [])
    if own and own["id"] != claim.rollout_id and not own.get("ended_at"):
        superseded.append({"id": own["id"], "target": own.get("target"), "at": at.wall, "by": claim.rollout_id})
    return {"rollout": begun, "superseded": superseded[-KEEP_SUPERSEDED:]}


def is_ours(record: Json | None, run_id: str) -> bool:
    return ((record or {}).get("lock") or {}).get("run_id") == run_id


def renewed(record: Json, ttl: float, at: Now) -> Json:
    lock = dict(record["lock"], renewed_at=at.wall, renewed_clock=at.clock, ttl_s=ttl)
    return dict(record, seq=record["seq"] + 1, lock=lock)


def released(record: Json, roster: list[str] | None, end: Json, at: Now) -> Json:
    """The record without the lock; END holds what became of the worker, where the rollout came to an end."""
    out = dict(record, seq=record["seq"] + 1, lock=None, request=None)
    if roster:
        out["roster"] = sorted(set(roster))
    own = record.get("rollout")
    if own and end and own["id"] == (record["lock"] or {}).get("rollout_id"):
        out["rollout"] = dict(own, ended_at=at.wall, **end)
    return out


def requested(record: Json, what: str, by: str, reason: str, at: Now) -> Json:
    request = None if what == "none" else {"what": what, "by": by, "reason": reason, "at": at.wall}
    return dict(record, seq=record["seq"] + 1, request=request)


# --- the file ---


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
            with open(self.path, "rb") as stream:
                record = json.loads(stream.read(_MAX_BYTES).decode("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self._bad(str(error)) from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("seq"), int):
            raise self._bad(f"it is no {SCHEMA}")
        return record

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
    ) -> Iterator[None]:
        """Hold the lock file: exclusively to change the record, shared while a module is at work on the worker."""
        handle = self._open()
        try:
            self._flock(handle, exclusive, clock() + wait, clock, sleep)
            yield
        finally:
            os.close(handle)

    def _open(self) -> int:
        try:
            os.makedirs(self.folder, mode=0o750, exist_ok=True)
            return os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StepError:
        return StepError(
            "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "unwritable",
            f"writing the rollout's record at '{self.folder}': {error.strerror}; "
            "set worker_dir (solver_worker_dir) to an existing directory that this user may write, and make room there",
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

    def write(self, record: Json) -> None:
        try:
            write_file(self.path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode("utf-8"), 0o640)
        except OSError as error:
            raise self._unwritable(error) from error

    def append_history(self, verdict: Json, at: Now, keep: int = KEEP_HISTORY) -> None:
        """Keep the verdict, and of the old ones the newest."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{at.wall}-{verdict.get('rollout_id')}-{verdict.get('run_id')}")
        try:
            os.makedirs(self.history, mode=0o750, exist_ok=True)
            write_json(os.path.join(self.history, f"{name[:200]}.json"), verdict)
            old = sorted(entry for entry in os.listdir(self.history) if entry.endswith(".json"))[:-keep]
            for entry in old:
                os.unlink(os.path.join(self.history, entry))
        except OSError as error:
            raise self._unwritable(error) from error

    @contextlib.contextmanager
    def fence(self, run_id: str | None) -> Iterator[None]:
        """Let a module work only while its run holds the rollout's lock, and keep others from taking it meanwhile."""
        if not run_id:
            yield
            return
        with self.guarded(exclusive=False):
            record = self.read()
            if not is_ours(record, run_id):
                holder = (record or {}).get("lock")
                who = in_words(holder, now()) if holder else "nobody holds it"
                raise StepError(
                    "fenced",
                    f"working on the worker: this run does not hold the rollout's lock ({who}); it must not go on",
                    {"holder": holder})
            yield


def look(worker_dir: str) -> Json:
    """What worker_info tells of the record."""
    try:
        record = RecordFile(worker_dir).read()
    except StepError as error:
        return {"rollout": None, "lock_state": "unknown", "record_problem": error.message}
    return {"rollout": record, "lock_state": lock_state(record, now())}
