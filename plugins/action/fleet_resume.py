# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""End the drains of workers that may serve again."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._resume import (
    RENEWS_WITHIN_S,
    Resume,
    at_work,
    decisions,
    left_to_removal,
    outcomes,
    removals,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction

LOOK_EVERY_S = 2.0


class ActionModule(FleetAction):
    """Never fails for what a worker says: the play fails those that do not serve."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        census = self.each("worker_info", self.info_args(), _entry.census)
        decided = decisions(census, self.settings, self.dead_runs(census))
        decided = left_to_removal(decided, self._being_removed(census, removals(decided)))
        args = {name: self._end(name, own) for name, own in decided.items() if own.action == "resume"}
        results = self.each("worker_drain", args, _read)
        found = outcomes(decided, results)
        return result | {
            "changed": any(own.get("changed") for own in results.values()),
            "not_serving": {name: line for name, (serves, line) in found.items() if not serves},
            "msg": [line for _serves, line in found.values()]}

    def _being_removed(self, census: dict[str, Any], names: list[str]) -> set[str]:
        """Return who is being removed. The drain of a removal that died looks the same, but nobody renews it."""
        going: set[str] = set()
        until = time.monotonic() + RENEWS_WITHIN_S
        while (left := [name for name in names if name not in going]) and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
            seen = self.each("worker_info", {name: self.info_args()[name] for name in left}, _entry.census)
            going.update(name for name in left if at_work(census[name], seen[name]))
        return going

    def _end(self, name: str, own: Resume) -> dict[str, Any]:
        worker = self.workers[name]
        return {"state": "active", "owner": own.owner, "worker_dir": worker["worker_dir"],
                "control_socket": worker["control_socket"], "control_timeout": self.settings["solver_control_timeout"],
                "reason": self.settings["solver_reason"]}


def _read(raw: Any, _now: float) -> dict[str, Any]:
    return dict(_entry.step_result(raw, time.time(), "give_back"))
