# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide before a wave whether it may begin: the failure budget of the whole fleet."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import fleet_facts, plain
from ansible_collections.solver.fleet.plugins.plugin_utils._rollout import gate


class ActionModule(ActionBase):  # type: ignore[misc]
    """Never fails: a hard stop would keep every later play from running."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        plan = plain(task_vars["solver_plan"])
        facts = fleet_facts(task_vars, plan["workers"], "solver_outcome")
        decision = gate(plan, {host: own.get("solver_outcome") or {} for host, own in facts.items()})
        result.update(changed=False, ansible_facts={"solver_gate": decision}, **decision)
        result["msg"] = decision["reason"] or f"{decision['done']} of {decision['todo']} done, going on"
        return result
