# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide before a wave whether it may begin, on a live census of the whole fleet."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import fleet_facts, plain
from ansible_collections.solver.fleet.plugins.plugin_utils._fanout import run_everywhere
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import (
    HOOK_FACTS,
    Decision,
    Stall,
    done_count,
    gate,
    gate_back,
    healthy_count,
    last_gate,
    lost_later,
    returned_count,
    spent_by,
    told,
    with_losses,
    with_routers,
)

# Between two looks at a fleet that is short of serving workers.
PAUSE_S = 5.0
# A silent task would be taken for a hung one.
SAY_EVERY_S = 15.0
# One look at a worker: the connection, the module and the worker's own answer.
LOOK_S = 20.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Never fails: a hard stop would keep every later play from running."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        _unused, args = self.validate_argument_spec({"back": {"type": "bool", "default": False}})
        self.back = args["back"]
        fact = "solver_back_gate" if self.back else "solver_gate"
        self.plan = plain(self.task_vars["solver_plan"])
        self.rollout = plain(self.task_vars["solver_rollout"])
        facts = fleet_facts(self.task_vars, self.plan["workers"], "solver_outcome", "solver_back_outcome",
                            *HOOK_FACTS, fact)
        # Going back, what became of a worker there is the last that is known of it.
        last = "solver_back_outcome" if self.back else "solver_outcome"
        outcomes = {host: own.get(last) or own.get("solver_outcome") or {} for host, own in facts.items()}
        backs = {host: own.get("solver_back_outcome") or {} for host, own in facts.items()}
        self.told = told({host: own.get("solver_outcome") or {} for host, own in facts.items()}, backs)
        self.healthy = returned_count(backs) if self.back else healthy_count(self.plan, outcomes)
        before = last_gate(facts, self.back)
        state = before if before.get("cause") and not before.get("open") else self._ask(outcomes, before)
        state["done"], state["todo"] = done_count(self.plan, outcomes), len(self.plan["order"])
        state["spent"] = spent_by(self.plan, outcomes)
        result.update(changed=False, ansible_facts={fact: state}, **state)
        result["msg"] = state["reason"] or f"{state['done']} of {state['todo']} done, going on"
        return result

    def _ask(self, outcomes: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        """Look until the wave may begin, or never will."""
        decide = gate_back if self.back else gate
        since = time.monotonic()
        if before.get("healthy") == self.healthy:
            since = float(before["since"])
        deadline = float(self.rollout["settings"]["solver_progress_deadline"])
        wave = list(self.task_vars["ansible_play_batch"])
        said = 0.0
        while True:
            live, lost = self._look(outcomes)
            known = with_losses(outcomes, lost)
            decision = decide(self.plan, known, live, wave, Stall(time.monotonic() - since, deadline))
            if not decision.wait:
                return {"open": decision.open, "cause": decision.cause, "reason": decision.reason,
                        "healthy": self.healthy, "since": since, "looks": int(before.get("looks") or 0) + 1}
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                self._say(decision, deadline - (said - since))
            time.sleep(min(PAUSE_S, max(0.1, deadline - (time.monotonic() - since))))

    def _look(self, outcomes: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Return how all are now, and who was fine and is lost: not once, a line may be slow, but twice in a row."""
        live = self._census()
        silent = set(lost_later(self.plan, outcomes, live))
        if silent:
            time.sleep(PAUSE_S)
            live = self._census()
            silent &= set(lost_later(self.plan, outcomes, live))
        return live, silent

    def _say(self, decision: Decision, left: float) -> None:
        self._display.display(f"waiting for workers, {left:.0f} s left: {decision.reason}")

    def _census(self) -> dict[str, dict[str, Any]]:
        """Ask every worker that could be reached, all at once; renew the lock in the same call."""
        settings = self.rollout["settings"]
        args = {
            name: {
                "worker_dir": self.rollout["workers"][name]["worker_dir"],
                "state": "renewed", "rollout_id": self.plan["rollout_id"], "run_id": self.plan["run_id"],
                "ttl": settings["solver_lock_ttl"],
                "control_socket": self.rollout["workers"][name]["control_socket"],
                "control_timeout": settings["solver_control_timeout"], **self.told.get(name, {})}
            for name in self.plan["lock"]["workers"]}
        live = self._everywhere("rollout_lock", args)
        if settings["solver_floor_view"] != "routers":
            return live
        routers = self._everywhere("router_info", {
            host: {"stats_socket": own["stats_socket"], "backend": own["backend"],
                   "timeout": settings["solver_control_timeout"]}
            for host, own in self.rollout["routers"].items()})
        return with_routers(live, self.rollout["workers"], routers)

    def _everywhere(self, module: str, args: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return run_everywhere(
            self, self.task_vars, f"solver.fleet.{module}", args,
            timeout=LOOK_S + float(self.rollout["settings"]["solver_control_timeout"]),
            parallel=max(1, int(self.task_vars.get("ansible_forks") or 5)))
