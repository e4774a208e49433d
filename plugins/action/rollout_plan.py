# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn the census and the staged releases into the plan of a rollout, or refuse."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _canary, _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import write_refusal
from ansible_collections.solver.fleet.plugins.plugin_utils._plan import make_plan
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import plan_lines
from ansible_collections.solver.fleet.plugins.plugin_utils._awx import job_warnings
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import expanded
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Plan
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document, settings_shown, who_shown


class ActionModule(RunAction):
    """Decides once for all."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        census, staged = self.ledger.read("census"), self.ledger.read("staged")
        fleet = {host: {"census": own, "staged": staged.get(host) or {}} for host, own in census.items()}
        plan = make_plan(fleet, self.settings, {
            "kind": self.rollout["kind"], "run_id": self.rollout["run_id"], "new_id": self.rollout["new_id"],
            "forks": self.forks, "dead_runs": self.dead_runs(census), "now": time.time(),
            "machines": {host: own["machine"] for host, own in self.workers.items()},
            "routers": self.rollout["routers"], "strata": self.rollout["strata"],
            "measured": self._measured(census)})
        plan["started_at"], plan["settings"] = self.rollout["started_at"], settings_shown(self.settings)
        plan["who"] = who_shown(self.rollout["who"])
        plan["warnings"] = plan["warnings"] + job_warnings(
            plan["estimate_s"] or 0, self.task_vars.get("solver_awx_job_timeout"))
        if plan["locked"]:
            plan["refused"] = plan["locked"]  # nothing was staged, so the rest would complain of that
        elif plan["refused"] and self.rollout["staging"]:
            plan["refused"] += _available(self.rollout["package"], self.settings)
        if plan["refused"]:
            return result | self._refused(plan)
        self.ledger.keep("plan", plan)
        self.ledger.emit("planned", **{name: plan.get(name) for name in (
            "kind", "strategy", "rollout_id", "run_id", "target", "stages", "window", "floor", "tolerated",
            "estimate_s")},
            out=[name for name, own in plan["workers"].items() if not own["serving"]],
            p99_s={name: plan["workers"][name]["p99_s"] for name in plan["order"] if plan["workers"][name]["p99_s"]},
            lines=plan_lines(plan))
        shown = {name: plan.get(name) for name in ("kind", "rollout_id", "target")}
        return result | shown | {"refused": False, "todo": len(plan["order"]), "msg": plan_lines(plan)}

    def _measured(self, census: dict[str, Any]) -> dict[str, tuple[int, float]]:
        """Return how many tasks have ended on each worker since it was first looked at, and the seconds since."""
        if self.rollout["kind"] != "update" or self.settings["solver_strategy"] != "canary":
            return {}
        since = float(self.ledger.read("looked").get("at") or time.monotonic())
        now = self.everywhere("worker_info", self.info_args(), _entry.census)
        seconds = time.monotonic() - since
        ended = {name: _canary.ended_between(census.get(name), own) for name, own in now.items()}
        return {name: (tasks, seconds) for name, tasks in ended.items() if tasks is not None}

    def _refused(self, plan: Plan) -> dict[str, Any]:
        if self.settings["solver_verdict_file"]:
            write_refusal(self.settings["solver_verdict_file"], document("refused", plan, reasons=plan["refused"]))
        why = "Refusing to begin, nothing was drained: " + "; ".join(plan["refused"])
        return {"refused": True, "again": bool(plan["locked"]) and self.wait_s > 0, "msg": why}


def _available(package: str, settings: dict[str, Any]) -> list[str]:
    """With a fixed set of wheels, say which versions there are: most refusals are a mistyped one."""
    if not settings["solver_offline"] or "==" not in package:
        return []
    name, version = package.split("==", 1)
    folder = Path(expanded(settings["solver_wheelhouse"]))
    found = sorted(path.name.split("-")[1] for path in folder.glob(f"{name.replace('-', '_')}-*.whl"))
    return [] if version in found else [f"solver_wheelhouse {folder} holds {name} {', '.join(found) or 'not at all'}"]
