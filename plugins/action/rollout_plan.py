# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn the census and the staged releases into the plan of a rollout, or refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import fleet_facts, plain, write_refusal
from ansible_collections.solver.fleet.plugins.plugin_utils._lock import dead_runs, here
from ansible_collections.solver.fleet.plugins.plugin_utils._plan import holder_of, make_plan, plan_lines, wave_pairs
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document, settings_shown


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what the play registered for each worker; decides once for all."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        rollout = plain(task_vars["solver_rollout"])
        settings = rollout["settings"]
        facts = fleet_facts(task_vars, rollout["hosts"], "solver_census", "solver_staged")
        fleet = {host: {"census": own.get("solver_census"), "staged": own.get("solver_staged")}
                 for host, own in facts.items()}
        holders = [holder for holder in (holder_of(own["census"] or {}) for own in fleet.values()) if holder]
        plan = make_plan(fleet, settings, {
            "kind": rollout["kind"], "run_id": rollout["run_id"], "new_id": rollout["new_id"],
            "forks": int(task_vars.get("ansible_forks") or 5), "dead_runs": dead_runs(holders, here()),
            "machines": {host: own["machine"] for host, own in rollout["workers"].items()},
            "routers": rollout["routers"]})
        plan.update(started_at=rollout["started_at"], settings=settings_shown(settings))
        if plan["refused"]:
            if rollout["staging"]:
                plan["refused"] += _available(rollout["package"], settings)
            return result | _refused(plan, settings["solver_verdict_file"])
        result.update(changed=False, plan=plan, msg=plan_lines(plan), pairs=wave_pairs(plan["waves"]))
        result["ansible_facts"] = {"solver_plan": plan}
        return result


def _available(package: str, settings: dict[str, Any]) -> list[str]:
    """With a fixed set of wheels, say which versions there are: most refusals are a mistyped one."""
    if not settings["solver_offline"] or "==" not in package:
        return []
    name, version = package.split("==", 1)
    folder = Path(settings["solver_wheelhouse"]).expanduser()
    found = sorted(path.name.split("-")[1] for path in folder.glob(f"{name.replace('-', '_')}-*.whl"))
    return [] if version in found else [f"solver_wheelhouse {folder} holds {name} {', '.join(found) or 'not at all'}"]


def _refused(plan: dict[str, Any], path: str) -> dict[str, Any]:
    if path:
        write_refusal(path, document("refused", plan, reasons=plan["refused"]))
    return {
        "failed": True,
        "msg": "Refusing to begin, nothing was drained: " + "; ".join(plan["refused"]),
        "failure": {"code": "locked" if plan["refused"] == plan["locked"] else "refused",
                    "message": "the plan was refused", "details": {"reasons": plan["refused"]}},
    }
