# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say whether the rollout holds the fleet's lock, and leave a note for whoever finds it interrupted."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import (
    fleet_facts,
    plain,
    write_json,
    write_refusal,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._plan import lock_refusals, quicker
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document


class ActionModule(ActionBase):  # type: ignore[misc]
    """Fails when the lock is not held; the play then gives back what it took."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        plan = plain(task_vars["solver_plan"])
        path = plain(task_vars["solver_rollout"])["settings"]["solver_verdict_file"]
        facts = fleet_facts(task_vars, plan["workers"], "solver_lock")
        locks = {host: own.get("solver_lock") or {} for host, own in facts.items()}
        reasons = lock_refusals(plan, locks)
        result["changed"] = False
        if not reasons:
            if path:
                # Replaced at the end; if the controller dies in between, this is what the file says.
                write_json(path, document("interrupted", plan))
            return result | {"begun": True}
        if path:
            write_refusal(path, document("refused", plan, reasons=reasons))
        return result | {
            "failed": True,
            "msg": "Refusing to begin, nothing was drained: " + "; ".join(reasons),
            "failure": {"code": "locked" if quicker(locks) else "too_few", "message": "the lock is not held",
                        "details": {"reasons": reasons}}}
