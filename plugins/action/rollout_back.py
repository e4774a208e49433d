# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide after the waves which workers go back to where they came from."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import fleet_facts, plain
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import (
    HOOK_FACTS,
    last_gate,
    left_behind,
    roll_back,
    undoes,
)
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
        cause, on_abort = str(closed.get("cause") or ""), settings["solver_on_abort"]
        waves = roll_back(plan, outcomes, cause, on_abort)
        left = left_behind(plan, outcomes, cause)
        names = [name for wave in waves for name in wave]
        result.update(changed=False, pairs=wave_pairs(waves, BACK_GROUP), waves=waves)
        result["msg"] = f"rolling back {', '.join(names)}: {closed['reason']}" if names else "nothing to roll back"
        # The same shape as a plan's, so that one role does both.
        workers = {name: _swapped(plan["workers"][name], name in left) for name in names}
        result["ansible_facts"] = {"solver_back": {
            **plan, "workers": workers, "order": names, "waves": waves,
            "undoes": undoes(plan, outcomes, cause, on_abort)}}
        return result


def _swapped(worker: dict[str, Any], left: bool) -> dict[str, Any]:
    """Without a probe: that release has served here, and a provider that is down must not keep it from serving.

    One that was LEFT behind is drained already, and may not yet run what it was to be taken to.
    """
    back = {**worker, "to": worker["back_version"], "release": worker["back_to"], "back_to": None,
            "back_version": None, "probe": False}
    if left:
        return back
    return {**back, "from": worker["to"], "from_release": worker["release"], "serving": True, "steal": False,
            "on_expire": None}
