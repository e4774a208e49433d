#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold, renew and give back the rollout's lock of one worker, and keep the rollout's record there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Hold the rollout's lock of a worker, and keep its record
version_added: "1.0.0"
description:
  - Keeps one record in the directory of each worker. It says which rollout and which run holds the worker, what the
    worker came from, and what became of it. So the truth is on the workers, and any machine can go on.
  - The record is changed only under an exclusive C(flock), and replaced in one step. The modules that change a worker
    hold the same lock shared while they work, and refuse when the record names another run.
  - A rollout holds its fleet when it holds all workers that can be reached, and more than half of the fleet.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: Renewing always writes the time. Everything else, done twice, changes nothing the second time.
  platform:
    support: full
    platforms: posix
options:
  worker_dir:
    description: Directory of the worker with its links C(current) and C(previous).
    type: path
    required: true
  state:
    description:
      - V(held) takes the lock if it is free, expired, of a dead run or this run's own.
      - V(renewed) says that the run is alive; fails with C(lock_lost) when another run has the lock.
      - V(released) writes what became of the worker and gives the lock back; another run's is left alone. Without
        O(verdict) the rollout never began, and what the record held before it is there again.
      - V(requested) leaves O(request) for the run that holds the lock.
      - V(enrolled) writes the O(roster), outside of any rollout; fails with C(held) while one holds the lock.
    type: str
    choices: [held, renewed, released, requested, enrolled]
    default: held
  rollout_id:
    description: The rollout, kept over all its runs; owner of its drains. Needed for V(held).
    type: str
  run_id:
    description: This one run; the token that every other module shows. Needed but for V(requested) and V(enrolled).
    type: str
  kind:
    description: What the rollout is.
    type: str
    choices: [update, rollback, recover]
    default: update
  target:
    description: What was asked for, by which the rollout is known again.
    type: str
  from_version:
    description: Version that the worker came from.
    type: str
  from_release:
    description: Release that the worker came from, and that a rollback returns it to.
    type: str
  to_version:
    description: Version that the worker goes to.
    type: str
  to_release:
    description:
      - Release that the worker goes to. Without it the worker is locked, and its last rollout's record is left alone.
      - The same rollout to the same release keeps what the record says of where the worker came from.
    type: str
  reason:
    description: Why, shown to whoever meets the lock or the request.
    type: str
    default: ""
  job:
    description: Job of the automation platform, if there is one.
    type: str
  user:
    description: Who runs the rollout.
    type: str
  controller:
    description: Where it runs, with host, boot and process, so that its death can be proven.
    type: dict
  ttl:
    description: Seconds without a renewal after which the lock is free.
    type: float
    default: 1800.0
  dead_runs:
    description: Runs whose controller is proven dead; their lock is taken over at once.
    type: list
    elements: str
    default: []
  steal:
    description: Take the lock whoever holds it. Needs O(reason).
    type: bool
    default: false
  started_at:
    description: When the rollout began, by the controller's clock; rollouts are ordered by it. Default is the target's.
    type: str
  expected_seq:
    description:
      - The RV(record.seq) that the census saw, 0 for no record. Another one fails with C(changed), unless this very
        run has the lock already.
    type: int
  control_socket:
    description: The worker's control socket; when given, RV(census) says how the worker is.
    type: path
  control_timeout:
    description: Seconds for one answer of the control socket.
    type: float
    default: 5.0
  request:
    description: What to ask of the run that holds the lock; V(none) takes a request back.
    type: str
    choices: [pause, abort, none]
    default: none
  by:
    description: Who asks.
    type: str
    default: ""
  roster:
    description: For V(released) and V(enrolled), all workers of the fleet, by which a later run notices that some are
      missing.
    type: list
    elements: str
  outcome:
    description: For V(released) and V(renewed), what became of the worker; a later run goes by it.
    type: str
  cause:
    description: With O(outcome), what its failure is blamed on.
    type: str
  outcome_reason:
    description: With O(outcome), why in words.
    type: str
  verdict:
    description: For V(released), the verdict document; the rollout is then over.
    type: dict
  history:
    description: Whether to keep O(verdict) in C(rollout/history), of which the last 20 stay.
    type: bool
    default: true
seealso:
  - module: solver.fleet.worker_info
"""

EXAMPLES = r"""
- name: Take the lock of a worker
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    rollout_id: rollout-42
    run_id: 5d1c9a3b7e20f114
    user: ada
    reason: update to 1.3.0

- name: Give it back
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    state: released
    rollout_id: rollout-42
    run_id: 5d1c9a3b7e20f114

- name: Ask the running rollout to pause
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    state: requested
    request: pause
    by: ada
"""

RETURN = r"""
record:
  description: The record as it is now, V(none) where there is none.
  returned: always
  type: dict
  contains:
    seq:
      description: Rises with every change.
      type: int
      returned: always
ours:
  description: Whether O(run_id) holds the lock now.
  returned: always
  type: bool
holder:
  description: The lock as it is now, V(none) when it is free.
  returned: always
  type: dict
superseded:
  description: The rollout that was not over and was replaced by this one.
  returned: O(state=held)
  type: str
census:
  description: What M(solver.fleet.worker_info) would say of the worker.
  returned: when O(control_socket) is given
  type: dict
failure:
  description: Why it failed.
  type: dict
  returned: failure
  contains:
    code:
      description: One of V(held), V(changed), V(lock_lost), V(no_rollout), V(busy), V(bad_record), V(unwritable),
        V(no_space), V(bad_option).
      type: str
      returned: always
    message:
      description: The cause, and the option that mends it.
      type: str
      returned: always
    details:
      description: More about it, such as the holder.
      type: dict
      returned: always
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._client import WorkerError
from ansible_collections.solver.fleet.plugins.module_utils._files import Json, StepError
from ansible_collections.solver.fleet.plugins.module_utils._record import (
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
from ansible_collections.solver.fleet.plugins.module_utils._result import failure_of, positive


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
        "ttl": {"type": "float", "default": 1800.0},
        "dead_runs": {"type": "list", "elements": "str", "default": []},
        "steal": {"type": "bool", "default": False},
        "expected_seq": {"type": "int"},
        "control_socket": {"type": "path"},
        "control_timeout": {"type": "float", "default": 5.0},
        "request": {"type": "str", "choices": ["pause", "abort", "none"], "default": "none"},
        "by": {"type": "str", "default": ""},
        "roster": {"type": "list", "elements": "str"},
        "started_at": {"type": "str"},
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
        started_at=given["started_at"],
    )


class Run:
    """One call: reads the record under the lock, decides, writes."""

    def __init__(self, given: Json, check_mode: bool) -> None:
        self.given = given
        self.check_mode = check_mode
        self.file = RecordFile(os.path.abspath(given["worker_dir"]))
        self.before: Json | None = None
        self.record: Json | None = None
        self.result: Json = {}

    def run(self) -> None:
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
        became = {name: self.given[name] for name in ("outcome", "cause", "outcome_reason")}
        self._set(renewed(record, self.given["ttl"], now(), became if became["outcome"] else None))

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


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[
            ("state", "held", ["rollout_id", "run_id"]),
            ("state", "renewed", ["run_id"]),
            ("state", "released", ["run_id"]),
            ("state", "enrolled", ["roster"]),
            ("steal", True, ["reason"]),
        ],
        supports_check_mode=True,
    )
    # The folder is kept from others; the worker's directory, if it is made here, is for the service's own user too.
    os.umask(0o022)
    run = Run(module.params, module.check_mode)
    try:
        run.run()
    except (StepError, WorkerError) as error:
        module.fail_json(msg=error.message, failure=failure_of(error), **run.finish())
    module.exit_json(**run.finish())


if __name__ == "__main__":
    main()
