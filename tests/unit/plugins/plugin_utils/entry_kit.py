# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules answer of a good worker, each with every field that it may have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

# 2026-11-24T02:00:00Z
NOW = 1_795_485_600.0
THEN = "2026-11-24T01:00:00Z"
TOTALS = {"accepted": 10, "succeeded": 3, "failed": 0, "uncertain": 0, "expired": 0, "probes": 1,
          "provider_submits": 11, "refused": 2}
TASKS = {"open": 7, "accepted": 0, "submitting": 0, "polling": 7, "unfetched": 1, "oldest_age_s": 41.2}
CLOCK = {"host_boot_id": "b", "uptime_s": 86400.5}
DRAIN = {"owner": "r0", "reason": "update to 1.3.0", "mode": "handover", "on_deadline": "wait", "on_expire": "verify",
         "version": "1.2.0", "requested_at": "2026-11-24T01:00:00.120Z", "grace_until": THEN, "deadline_at": None,
         "lease_expires_at": THEN, "open_at_start": 71, "expired": False}
LOCK = {"run_id": "run0", "rollout_id": "r0", "job": "17", "user": "ada", "reason": "night shift",
        "controller": {"host": "deck", "machine_id": "m", "boot_id": "b", "pid": 7, "pid_started": 70, "pid_ns": 4},
        "acquired_at": THEN, "renewed_at": THEN, "renewed_clock": dict(CLOCK), "ttl_s": 1800.0}
PROBE = {"request_id": "r0-w1-1", "outcome": "failed", "elapsed_s": 1.5, "version": "1.3.0", "boot_id": "p2",
         "error": {"code": "ERROR_X", "class": "provider", "message": "busy"}}


def status(version: str = "1.2.0", release: str = "1.2.0-old", drain: Any = None, **more: Any) -> dict[str, Any]:
    """A worker's status document with all that docs/openapi/control-v1.yaml names."""
    return {
        "schema": "solver.worker.status/1",
        "api": {"versions": ["v1"], "features": ["drain.lease", "drain.persist", "probe", "handover", "verify"]},
        "instance": {"name": "w1", "version": version, "release": release, "boot_id": "p1", "pid": 4711,
                     "started_at": "2026-11-23T17:00:00.000Z", "restarts": 7},
        "state": "drained" if drain else "running", "since": THEN, "seq": 42, "accepting": not drain,
        "safe_to_stop": bool(drain), "idle": False, "drain": drain, "tasks": dict(TASKS), "totals": dict(TOTALS),
        "failures": {"worker": 1, "provider": 2},
        "solve_times": {"count": 500, "p50_s": 31.0, "p99_s": 82.4}, "solve_histogram": [0, 3, 17],
        "provider": {"ok": True, "last_ok_at": THEN, "balance": "12.34", "balance_at": THEN,
                     "last_error": {"code": "ERROR_X", "class": "provider", "at": THEN}},
        "journal": {"id": "j", "schema": 1, "min_reader": 1, "writable": True}, "failure": None, **more}


def release(version: str = "1.2.0", name: str = "1.2.0-old") -> dict[str, Any]:
    return {"schema": "solver.release/1", "id": name, "version": version, "package_digest": "a" * 64,
            "config_digest": "c" * 64, "data_address": "127.0.0.1:8001", "created_at": THEN, "rollout_id": "r0",
            "from": "1.1.0-old", "worker": "w1"}


def record(lock: Any = None, **more: Any) -> dict[str, Any]:
    return {"schema": "solver.rollout/1", "seq": 3, "roster": ["w1", "w2", "w3"], "lock": lock,
            "request": {"what": "pause", "by": "eve", "reason": "lunch", "at": THEN},
            "superseded": [{"id": "r9", "target": "1.1.0", "at": THEN, "by": "r0"}],
            "rollout": {"id": "r0", "kind": "update", "target": "1.3.0", "reason": "night shift",
                        "from": {"version": "1.2.0", "release": "1.2.0-old"},
                        "to": {"version": "1.3.0", "release": "1.3.0-new"}, "started_at": THEN, "ended_at": THEN,
                        "verdict": "aborted", "outcome": "failed", "cause": "drain", "outcome_reason": "too slow",
                        "strategy": "canary", "judgement": {"word": "inconclusive", "at": THEN, "reason": "too few"},
                        "baseline": {"arm": "canary", "at": THEN, "journal": "j", "looks": 2, "books": {
                            "succeeded": 3, "failed": 0, "uncertain": 0, "expired": 0, "apart": 0, "times": [0, 3]}},
                        **more}}


def head() -> dict[str, Any]:
    return {"rollout_id": "r0", "run_id": "run0", "kind": "update", "target": "1.3.0", "verdict": "aborted",
            "started_at": THEN, "ended_at": THEN, "reasons": ["too slow"]}


def census(lock: Any = None, **more: Any) -> dict[str, Any]:
    """The answer of worker_info."""
    return {"changed": False, "finding": "answering", "worker": status(**more), "message": "worker 'w1' is running",
            "rollout": record(lock), "lock_state": "held" if lock else "free", "history": [head(), head()],
            "host_clock": dict(CLOCK),
            "releases": {"current": release(), "previous": release("1.1.0", "1.1.0-old"),
                         "staged": release("1.3.0", "1.3.0-new")}}


def lock_answer() -> dict[str, Any]:
    """The answer of rollout_lock that renews the lock."""
    asked = {key: value for key, value in census().items() if key in ("finding", "worker", "message", "host_clock")}
    return {"changed": False, "record": {**record(dict(LOCK)), "request": None}, "ours": True, "holder": dict(LOCK),
            "superseded": "r9", "census": asked}


def staged() -> dict[str, Any]:
    return {"changed": True, "release": release("1.3.0", "1.3.0-new"), "staged": True, "at_target": False,
            "current": "1.2.0-old", "previous": "1.1.0-old", "running_release": "1.2.0-old"}


def failure(code: str = "probe_failed") -> dict[str, Any]:
    return {"code": code, "cause": "release", "message": "its probe failed", "details": {
        "fault": "provider", "checking": "probe", "attempts": 2, "probe": PROBE, "holder": dict(LOCK),
        "errors": [{"code": "ERROR_X", "class": "provider"}] * 2, "remaining": dict(TASKS), "log": ["one", "two"]}}


def steps(failing: bool = True) -> dict[str, Any]:
    """The answer of worker_steps; FAILING, the probe of the new release failed and the worker went back."""
    drained = status(drain=dict(DRAIN))
    new = status("1.3.0", "1.3.0-new", dict(DRAIN))
    common = {"changed": True, "elapsed_s": 1.5, "host_clock": dict(CLOCK), "done": True}
    switch = {**common, "switched": True, "restarted": True, "at_target": True, "from": "1.2.0-old",
              "to": "1.3.0-new", "current": "1.3.0-new", "previous": "1.2.0-old", "running_release": "1.2.0-old",
              "release": release("1.3.0", "1.3.0-new"), "totals_before": dict(TOTALS), "journal_id": "j",
              "boot_id": "p2", "boot_id_before": "p1", "pid": 4712, "pid_before": 4711, "state_before": "drained",
              "worker_state": "drained"}
    check = {**common, "worker": new, "finding": "answering", "pending": "the worker is starting", "attempts": 2,
             "passed": ["worker"], "skipped_checks": [], "probe": dict(PROBE), "balance": "1.5", "solve_s": 3.5}
    results = {
        "drain": {**common, "began": True, "forced": False, "fallback": False, "gave_back": False, "worker": drained,
                  "drain": dict(DRAIN), "remaining": dict(TASKS), "open_at_drain": 12, "finding": "answering"},
        "switch": switch, "verify": check, "resume": {**common, "worker": new}, "soak": check,
        "record": {"changed": False, "record": record(dict(LOCK)), "ours": True, "holder": dict(LOCK)}}
    if failing:
        results["verify"] = {**check, "failed": True, "done": False, "msg": "its probe failed", "failure": failure()}
        del results["resume"], results["soak"]
        results.update({"revert_drain": results["drain"], "revert": switch,
                        "revert_verify": {**check, "skipped_checks": None}, "revert_resume": common,
                        "reference_worker": check, "reference_provider": {**common, "balance": "1.5"}})
    # As it comes over a line: no two places share a value.
    return json.loads(json.dumps({"changed": True, "done_steps": results, "host_clock": CLOCK, "elapsed_s": 9.5}))


def router() -> dict[str, Any]:
    one = {"status": "UP", "serving": True, "check": "L7OK", "address": "127.0.0.1:8001", "sessions": 3}
    return {"changed": False, "servers": {f"w{number}": dict(one) for number in (1, 2, 3)}, "version": "2.6",
            "uptime_s": 77}


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*way, key)
        yield from places(one, (*way, key))


GONE = object()


def changed(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of DOCUMENT with VALUE at the end of the WAY, or without it if it is GONE."""
    out = copy.deepcopy(document)
    at = out
    for key in way[:-1]:
        at = at[key]
    if value is GONE:
        del at[way[-1]]
    else:
        at[way[-1]] = value
    return out
