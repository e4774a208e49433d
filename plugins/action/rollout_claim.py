# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take the lock of the whole fleet, or give back what was taken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _entry, _view
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import write_json, write_refusal
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import document_of
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import (
    lock_refusals,
    lost_while_locked,
    quicker,
    without,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._program import given
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document


class ActionModule(RunAction):
    """Never fails for what it sees: the play refuses, or begins again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        self.plan = self.ledger.read("plan")
        locks = self._take()
        reasons = lock_refusals(self.plan, locks) or self._write_interrupted()
        if reasons:
            lost = lost_while_locked(self.plan, locks)
            self._give_back(name for name, own in locks.items() if own.get("ours") or name in lost)
            path = self.settings["solver_verdict_file"]
            if path:
                with contextlib.suppress(AnsibleActionFail):
                    write_refusal(path, document("refused", self.plan, reasons=reasons))
            why = "Refusing to begin, nothing was drained: " + "; ".join(reasons)
            return result | {"refused": True, "again": quicker(locks) and self.wait_s > 0, "msg": why}
        self._begin_to_roll(locks)
        self.measure()
        return result | {"changed": bool(self.plan["order"]), "refused": False,
                         "msg": f"rollout {self.plan['rollout_id']} holds the fleet"}

    def _write_interrupted(self) -> list[str]:
        """Write what the verdict's file is to say if the controller dies; return why that cannot be."""
        path = self.settings["solver_verdict_file"]
        try:
            if path:
                write_json(path, document("interrupted", self.plan))
        except AnsibleActionFail as error:
            return [one_line(error.message)]
        return []

    def _begin_to_roll(self, locks: Mapping[str, Mapping[str, Any]]) -> None:
        # Who has no turn keeps none, and is asked again at the gate.
        lost = {name: why for name, why in lost_while_locked(self.plan, locks).items() if name in self.plan["order"]}
        now = time.monotonic()
        state = _admit.begin(now)
        if lost:
            self.ledger.keep("plan", without(self.plan, lost))
        for name, why in lost.items():
            planned = self.plan["workers"][name]
            outcome: Outcome = {"outcome": "unreachable", "cause": "host", "reason": f"it {why}", "step": None,
                                "from": planned["from"], "to": planned["to"]}
            state["brief"][name] = outcome
            self.ledger.keep(document_of("roll", name), outcome)
        self.ledger.keep("view", {name: _view.seen(own, now) for name, own in locks.items() if name not in lost})
        self.ledger.keep("roll", state)
        self.ledger.emit("locked", workers=len(locks) - len(lost))
        for name, own in state["brief"].items():
            self.ledger.emit("outcome", part="roll", worker=name, **own)

    def _take(self) -> dict[str, dict[str, Any]]:
        """The first worker by name before all others, so that two rollouts meet there and one of them takes nothing."""
        names, leader = self.plan["lock"]["workers"], self.plan["lock"]["leader"]
        locks = self.everywhere("rollout_lock", {name: self._claim(name) for name in names if name == leader},
                                _entry.lock_answer, "locked")
        if locks.get(leader, {}).get("ours"):
            locks |= self.everywhere("rollout_lock", {name: self._claim(name) for name in names if name != leader},
                                     _entry.lock_answer, "locked")
        return locks

    def _claim(self, name: str) -> dict[str, Any]:
        """One that this rollout leaves alone is locked without a release to remember."""
        planned, own, who = self.plan["workers"][name], self.workers[name], self.rollout["who"]
        moves = planned["action"] == "update" or (planned["action"] == "already" and planned["begins"])
        rolls = self.plan["kind"] != "recover" and moves
        release = given(from_version=planned["back_version"], from_release=planned["back_to"],
                        to_version=planned["to"], to_release=planned["release"]) if rolls else {}
        return {**release, **given(
            state="held", worker_dir=own["worker_dir"], rollout_id=self.plan["rollout_id"],
            run_id=self.plan["run_id"], kind=self.plan["kind"], target=self.plan["asked"],
            strategy=self.plan["strategy"] if rolls else None, **(self._stage_of(name) if rolls else {}),
            started_at=self.rollout["started_at"], expected_seq=planned["record_seq"],
            reason=self.settings["solver_reason"], job=who["job"], user=who["user"], controller=who["controller"],
            ttl=self.settings["solver_lock_ttl"], dead_runs=self.plan["lock"]["dead_runs"].get(name),
            steal=self.settings["solver_lock_steal"], control_socket=own["control_socket"],
            control_timeout=self.settings["solver_control_timeout"])}

    def _stage_of(self, name: str) -> dict[str, int]:
        """For the status, which knows of the plan what the records say."""
        stages = [stage["workers"] for stage in self.plan["stages"] if stage["workers"]]
        number = next((number for number, names in enumerate(stages, 1) if name in names), None)
        return {"stage": number, "stages": len(stages)} if number else {}

    def _give_back(self, names: Iterable[str]) -> None:
        args = {name: {"state": "released", "worker_dir": self.workers[name]["worker_dir"],
                       "rollout_id": self.plan["rollout_id"], "run_id": self.plan["run_id"]} for name in names}
        self.everywhere("rollout_lock", args, _entry.lock_answer, "given back", to_the_end=True)
