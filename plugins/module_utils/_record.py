# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""The rollout's record on a worker: who may touch it, what it came from, and what became of it.

Here are the decisions, from a record to a record. How it lies on the disk is in _record_file.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Mapping, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, one_line
from ansible_collections.solver.fleet.plugins.module_utils._result import LONGEST_S, elapsed_since, host_clock

SCHEMA = "solver.rollout/1"
FOLDER = "rollout"
KEEP_SUPERSEDED = 5
# So long is a lock held that nobody renews.
TTL_S = 1800.0
# What can be done about a lock that somebody else holds.
WAIT_OR_STEAL = ("wait for it (solver_lock_wait), or, when it is known to be dead, set solver_lock_steal: true with a "
                 "solver_reason")
# Whose lock it is may name all workers of a fleet.
_WORDS_CHARS = 20000
_NAME_CHARS = 500
# A century: no clock of a machine has gone on for longer.
_LONGEST_UPTIME_S = 3.2e9
# With any other verdict, or another end of the worker itself, a rollout may have left it in its drain, which its
# successor must know as its own.
_LEFT_NOTHING = ("completed", "rolled_back")
_LET_GO = ("updated", "already", "reverted", "rolled_back", "not_attempted", "excluded")


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
    ttl: float = TTL_S
    dead_runs: tuple[str, ...] = ()
    steal: bool = False
    expected_seq: int | None = None
    # By the controller's clock: those of several workers may differ, and rollouts are ordered by it.
    started_at: str | None = None
    strategy: str | None = None
    # The worker's stage, and how many there are; for people.
    stage: int | None = None
    stages: int | None = None


def empty() -> Json:
    return {"schema": SCHEMA, "seq": 0, "roster": [], "rollout": None, "lock": None, "request": None, "superseded": []}


def defect(document: Any) -> str | None:
    """Why a document is no record; what is read as one may hold a lock, so nothing in it may be guessed."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return f"it is no {SCHEMA}"
    if not _is_count(document.get("seq")):
        return "its seq is no number"
    return (_shape_defect(document) or _names_defect(document)
            or (_lock_defect(document["lock"]) if document.get("lock") else None))


def _shape_defect(document: Json) -> str | None:
    for name, kind in (("rollout", dict), ("lock", dict), ("request", dict), ("roster", list), ("superseded", list)):
        if document.get(name) is not None and not isinstance(document[name], kind):
            return f"its {name} is no {'object' if kind is dict else 'list'}"
    return None


def _names_defect(document: Json) -> str | None:
    own = document.get("rollout") or {}
    if own and not _is_name(own.get("id")):
        return "its rollout has no id"
    if not all(isinstance(own.get(end) or {}, dict) for end in ("from", "to")):
        return "its rollout does not say between what"
    if not all(_is_name(name) for name in document.get("roster") or []):
        return "its roster holds what is no name"
    if not all(isinstance(old, dict) and _is_name(old.get("id")) for old in document.get("superseded") or []):
        return "its superseded holds what is no rollout"
    return None


def _lock_defect(lock: Json) -> str | None:
    if not _is_name(lock.get("run_id")):
        return "its lock has no run_id"
    ttl, clock = lock.get("ttl_s"), lock.get("renewed_clock") or {}
    if not _is_seconds(ttl, LONGEST_S) or _seconds(lock.get("renewed_at")) is None:
        return "its lock does not say when it ends"
    if not isinstance(clock, dict):
        return "its lock does not say when it was renewed"
    if clock.get("host_boot_id") and not _is_seconds(clock.get("uptime_s"), _LONGEST_UPTIME_S):
        return "its lock does not say when it was renewed"
    if not isinstance(lock.get("controller") or {}, dict):
        return "its lock names no controller"
    return _found_defect(lock.get("found") or {})


def _found_defect(found: Any) -> str | None:
    """What a lock keeps of the record as it was is put back when the lock goes, so it must be as good as a record."""
    if not isinstance(found, dict) or not set(found) <= {"rollout", "superseded"}:
        return "its lock does not say what was here before"
    return _shape_defect(found) or _names_defect(found)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _NAME_CHARS and value.isprintable()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_seconds(value: Any, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < most


def lock_state(record: Json | None, at: Now) -> str:
    """C(free), C(held), or C(expired): nobody renewed it in time."""
    lock = (record or {}).get("lock")
    if not lock:
        return "free"
    return "expired" if lock_age(lock, at) > float(lock.get("ttl_s") or 0) else "held"


def lock_age(lock: Mapping[str, Any], at: Now) -> float:
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
    lock: Json = record.get("lock") or {}
    # A connection that broke is tried again: what changed the record since the census was then this very claim.
    ours = lock.get("run_id") == claim.run_id
    if claim.expected_seq is not None and claim.expected_seq != record["seq"] and not ours:
        return StepError(
            "changed",
            "locking the worker: another rollout changed its record since the census; run the same command again",
            {"expected_seq": claim.expected_seq, "seq": record["seq"]},
        )
    free = lock_state(record, at) != "held" or claim.steal
    if free or ours or lock["run_id"] in claim.dead_runs:
        return None
    return StepError("held", f"locking the worker: {in_words(lock, at)}; {WAIT_OR_STEAL}", {"holder": lock})


def in_words(lock: Mapping[str, Any], at: Now | None = None, what: str = "it") -> str:
    """Say who holds a lock, of WHAT. Without a reading of its host's clock, when it was renewed by the wall."""
    where = lock.get("controller") or {}
    who = f"AWX job {lock['job']}" if lock.get("job") else f"{lock.get('user') or '?'} on {where.get('host') or '?'}"
    who += f" at {where['url']}" if where.get("url") else ""
    reason = f" ({lock['reason']})" if lock.get("reason") else ""
    seen = f"renewed {lock_age(lock, at):.0f} s ago" if at else f"last seen {lock.get('renewed_at')}"
    return one_line(f"rollout {lock.get('rollout_id')} of {who}{reason} holds {what} since "
                    f"{lock.get('acquired_at')}, {seen}", _WORDS_CHARS)


def held(record: Json, claim: Claim, at: Now) -> Json:
    """The record with the claim's lock, and its rollout where the claim moves the worker at all."""
    old = record.get("lock") or {}
    ours = old.get("run_id") == claim.run_id
    lock = {
        "run_id": claim.run_id, "rollout_id": claim.rollout_id, "job": claim.job, "user": claim.user,
        "reason": claim.reason, "controller": claim.controller or {},
        "acquired_at": old.get("acquired_at") if ours else at.wall,
        "renewed_at": at.wall, "renewed_clock": at.clock, "ttl_s": claim.ttl,
    }
    out = dict(record, seq=record["seq"] + 1, lock=lock, request=record["request"] if ours else None)
    if claim.release_to:
        # A run that does not get the whole fleet gives its lock back, and what it found here is what stays.
        found = {"rollout": record["rollout"], "superseded": record["superseded"]}
        lock["found"] = old.get("found") or found if ours else found
        out.update(_begun(record, claim, at))
    return out


def _begun(record: Json, claim: Claim, at: Now) -> Json:
    """The rollout that the lock is for. The same again keeps where it came from; another one replaces it."""
    own: Json = record.get("rollout") or {}
    same = bool(own) and own["id"] == claim.rollout_id
    goes_on = same and _release_of(own.get("to")) == _release_of(claim.release_to)
    begun: Json = {
        "id": claim.rollout_id, "kind": claim.kind, "target": claim.target, "reason": claim.reason,
        "from": own.get("from") if goes_on else claim.release_from, "to": claim.release_to,
        "started_at": own.get("started_at") if same else claim.started_at or at.wall,
        "ended_at": None, "verdict": None, "outcome": None, "cause": None, "outcome_reason": None,
        "strategy": claim.strategy, "stage": claim.stage, "stages": claim.stages,
        # How far the comparison of a canary was.
        "baseline": own.get("baseline") if goes_on else None, "judgement": own.get("judgement") if goes_on else None,
    }
    superseded = list(record.get("superseded") or [])
    if own and not same and not _left_nothing(own):
        superseded.append({"id": own["id"], "target": own.get("target"), "at": at.wall, "by": claim.rollout_id})
    return {"rollout": begun, "superseded": superseded[-KEEP_SUPERSEDED:]}


def _left_nothing(own: Json) -> bool:
    """Whether a rollout came to its end, and let the worker go."""
    return bool(own.get("ended_at")) and own.get("verdict") in _LEFT_NOTHING and own.get("outcome") in _LET_GO


def _release_of(version: Json | None) -> Any:
    return (version or {}).get("release")


def is_ours(record: Json | None, run_id: str) -> bool:
    return ((record or {}).get("lock") or {}).get("run_id") == run_id


def renewed(record: Json, ttl: float, at: Now, became: Json | None = None) -> Json:
    """The record with a fresh lock; BECAME is what is known of the worker, for whoever goes on if this run dies."""
    lock = dict(record["lock"], renewed_at=at.wall, renewed_clock=at.clock, ttl_s=ttl)
    out = dict(record, seq=record["seq"] + 1, lock=lock)
    own = _of_lock(record)
    if became and own:
        out["rollout"] = dict(own, **became)
    return out


def _of_lock(record: Json) -> Json | None:
    """The rollout, if it is the one that the lock is for, and not an earlier one that the worker still remembers."""
    own: Json | None = record.get("rollout")
    return own if own and own["id"] == (record["lock"] or {}).get("rollout_id") else None


def released(record: Json, roster: list[str] | None, end: Json, at: Now) -> Json:
    """The record without the lock; END holds what became of the worker. Without it the rollout never began."""
    out = dict(record, seq=record["seq"] + 1, lock=None, request=None)
    if roster:
        out["roster"] = sorted(set(roster))
    own = _of_lock(record)
    if end and own:
        out["rollout"] = dict(own, ended_at=at.wall, **end)
    elif not end:
        out.update((record["lock"] or {}).get("found") or {})
    return out


def enrolled(record: Json, roster: list[str]) -> Json:
    """The record with the fleet's members, where they have changed."""
    names = sorted(set(roster))
    return record if record["roster"] == names else dict(record, seq=record["seq"] + 1, roster=names)


def requested(record: Json, what: str, by: str, reason: str, at: Now) -> Json:
    request = None if what == "none" else {"what": what, "by": by, "reason": reason, "at": at.wall}
    return dict(record, seq=record["seq"] + 1, request=request)
