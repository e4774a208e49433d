# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide after the waves which workers go back to where they came from."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import fleet_facts, plain
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import HOOK_FACTS, back_plan, last_gate
from ansible_collections.solver.fleet.plugins.plugin_utils._plan import BACK_GROUP, wave_pairs
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import closed_by


class ActionModule(ActionBase):  # type: ignore[misc]
    """An abort for the release's sake returns all that this rollout updated; any end, whom a dead run left drained."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        plan = plain(task_vars["solver_plan"])
        settings = plain(task_vars["solver_rollout"])["settings"]
        facts = fleet_facts(task_vars, plan["workers"], "solver_outcome", "solver_gate", *HOOK_FACTS)
        outcomes = {host: own.get("solver_outcome") or {} for host, own in facts.items()}
        closed = closed_by(plan, outcomes, last_gate(facts)) or {}
        back = back_plan(plan, outcomes, str(closed.get("cause") or ""), settings["solver_on_abort"])
        names = ", ".join(back["order"])
        result.update(changed=False, pairs=wave_pairs(back["waves"], BACK_GROUP), waves=back["waves"])
        result["msg"] = f"rolling back {names}: {closed['reason']}" if names else "nothing to roll back"
        result["ansible_facts"] = {"solver_back": back}
        return result
