# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What rollout_lock does behind its options."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json, StepError, WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._job import Job
from ansible_collections.solver.fleet.plugins.module_utils._record import (
    TTL_S,
    Claim,
    Now,
    empty,
    enrolled,
    held,
    in_words,
    is_ours,
    lock_state,
    now,
    refusal,
    released,
    renewed,
    requested,
)
from ansible_collections.solver.fleet.plugins.module_utils._record_file import RecordFile
from ansible_collections.solver.fleet.plugins.module_utils._result import positive

RULES: dict[str, Any] = {
    "required_if": [
        ("state", "held", ["rollout_id", "run_id"]),
        ("state", "renewed", ["run_id"]),
        ("state", "released", ["run_id"]),
        ("state", "enrolled", ["roster"]),
        ("steal", True, ["reason"]),
    ],
}


def argument_spec() -> dict[str, Any]:
    return {
        "worker_dir": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["held", "renewed", "released", "requested", "enrolled"],
                  "default": "held"},
        "rollout_id": {"type": "str"},
        "run_id": {"type": "str"},
        "kind": {"type": "str", "choices": ["update", "rollback", "recover"], "default": "update"},
        "target": {"type": "str"},
        "from_version": {"type": "str"},
        "from_release": {"type": "str"},
        "to_version": {"type": "str"},
        "to_release": {"type": "str"},
        "reason": {"type": "str", "default": ""},
        "job": {"type": "str"},
        "user": {"type": "str"},
        "controller": {"type": "dict"},
        "ttl": {"type": "float", "default": TTL_S},
        "dead_runs": {"type": "list", "elements": "str", "default": []},
        "steal": {"type": "bool", "default": False},
        "expected_seq": {"type": "int"},
        "control_socket": {"type": "path"},
        "control_timeout": {"type": "float", "default": 5.0},
        "request": {"type": "str", "choices": ["pause", "abort", "none"], "default": "none"},
        "by": {"type": "str", "default": ""},
        "roster": {"type": "list", "elements": "str"},
        "started_at": {"type": "str"},
        "strategy": {"type": "str"},
        "stage": {"type": "int"},
        "stages": {"type": "int"},
        "baseline": {"type": "dict"},
        "judgement": {"type": "dict"},
        "outcome": {"type": "str"},
        "cause": {"type": "str"},
        "outcome_reason": {"type": "str"},
        "verdict": {"type": "dict"},
        "history": {"type": "bool", "default": True},
    }


def claim_of(given: Json) -> Claim:
    def release(prefix: str) -> Json | None:
        name = given[f"{prefix}_release"]
        return {"version": given[f"{prefix}_version"], "release": name} if name else None

    return Claim(
        rollout_id=given["rollout_id"], run_id=given["run_id"], kind=given["kind"], target=given["target"],
        release_from=release("from"), release_to=release("to"), reason=given["reason"], job=given["job"],
        user=given["user"], controller=given["controller"], ttl=given["ttl"],
        dead_runs=tuple(given["dead_runs"]), steal=given["steal"], expected_seq=given["expected_seq"],
        started_at=given["started_at"], strategy=given["strategy"],
        stage=given["stage"], stages=given["stages"],
    )


class LockJob(Job):
    """One call of rollout_lock: reads the record under the lock, decides, writes."""

    def __init__(self, params: Json, check_mode: bool, hide: Any) -> None:
        super().__init__(params, check_mode, hide)
        self.given = given = params
        self.file = RecordFile(os.path.abspath(given["worker_dir"]))
        self.before: Json | None = None
        self.record: Json | None = None
        self.result: Json = {}

    def work(self) -> None:
        positive(self.given, "ttl", "control_timeout")
        if self.check_mode or (self.given["state"] not in ("held", "enrolled") and not self.file.exists()):
            self._decide()
            return
        with self.file.guarded(exclusive=True):
            self._decide()

    def _decide(self) -> None:
        self.before = self.record = self.file.read()
        getattr(self, "_" + self.given["state"])(self.before or empty())

    def _set(self, record: Json) -> None:
        if not self.check_mode:
            self.file.write(record)
        self.record = record

    def _held(self, record: Json) -> None:
        claim = claim_of(self.given)
        at = now()
        refused = refusal(record, claim, at)
        if refused:
            raise refused
        after = held(record, claim, at)
        replaced = len(after["superseded"]) and after["superseded"] != record["superseded"]
        self.result["superseded"] = after["superseded"][-1]["id"] if replaced else None
        self._set(after)

    def _renewed(self, record: Json) -> None:
        if not is_ours(record, self.given["run_id"]):
            holder = record["lock"]
            who = in_words(holder, now()) if holder else "nobody holds it"
            raise StepError("lock_lost", f"renewing the lock: it is no longer this run's, {who}", {"holder": holder})
        names = ("outcome", "cause", "outcome_reason") if self.given["outcome"] else ()
        became = {name: self.given[name] for name in names}
        became.update({name: self.given[name] for name in ("baseline", "judgement") if self.given[name]})
        # A comparison that begins anew has not been judged.
        became.update({"judgement": None} if self.given["baseline"] and not self.given["judgement"] else {})
        self._set(renewed(record, self.given["ttl"], now(), became))

    def _released(self, record: Json) -> None:
        if not is_ours(record, self.given["run_id"]):
            return
        at = now()
        verdict = self.given["verdict"]
        end: Json = {}
        problem: StepError | None = None
        if verdict:
            end = {"verdict": verdict.get("verdict")}
            end.update({name: self.given[name] for name in ("outcome", "cause", "outcome_reason")})
            problem = self._remember(verdict, at)
        self._set(released(record, self.given["roster"], end, at))
        if problem:
            raise problem

    def _remember(self, verdict: Json, at: Now) -> StepError | None:
        """Keep the verdict. Where that cannot be written, the lock must be given back all the same."""
        if self.given["history"] and not self.check_mode:
            try:
                self.file.append_history(verdict, at)
            except StepError as error:
                return error
        return None

    def _requested(self, record: Json) -> None:
        what = self.given["request"]
        if what != "none" and lock_state(record, now()) != "held":
            raise StepError("no_rollout", f"asking for {what}: no rollout holds this worker", {})
        if (record["request"] or {}).get("what", "none") != what:
            self._set(requested(record, what, self.given["by"], self.given["reason"], now()))

    def _enrolled(self, record: Json) -> None:
        at = now()
        if record["lock"] and lock_state(record, at) == "held":
            text = f"enrolling the worker: {in_words(record['lock'], at)}; wait for it"
            raise StepError("held", text, {"holder": record["lock"]})
        after = enrolled(record, self.given["roster"])
        if after != record:
            self._set(after)

    def finish(self) -> Json:
        changed = self.record is not self.before and self.given["state"] != "renewed"
        out = dict(
            self.result, changed=changed, record=self.record, ours=is_ours(self.record, self.given["run_id"] or ""),
            holder=(self.record or {}).get("lock"),
            diff={"before": _shown(self.before), "after": _shown(self.record)})
        if self.given["control_socket"]:
            try:
                out["census"] = census(self.given["control_socket"], self.given["control_timeout"])
            except WorkerError as error:
                out["census"] = {"finding": "foreign", "worker": None, "message": error.message}
        return out


def _shown(record: Json | None) -> Json:
    lock, rollout = (record or {}).get("lock") or {}, (record or {}).get("rollout") or {}
    return {"lock": lock.get("run_id"), "rollout": rollout.get("id"), "verdict": rollout.get("verdict"),
            "request": ((record or {}).get("request") or {}).get("what")}
