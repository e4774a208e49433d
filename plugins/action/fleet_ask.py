# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask every worker of a fleet how it is, or leave a request with it; each for a bounded time."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction

REQUESTS = ["none", "pause", "abort"]


class ActionModule(FleetAction):
    """Never fails for what a worker says or does not say: the play decides."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars, request={"type": "str", "choices": REQUESTS},
                            workers={"type": "list", "elements": "str"})
        if self.args["request"]:
            answers = self.each("rollout_lock", self._requests(), _entry.lock_answer)
        else:
            asked = self.info_args()
            names = self.args["workers"]
            wanted = {name: own for name, own in asked.items() if names is None or name in names}
            answers = self.each("worker_info", wanted, _entry.census)
        return result | {"answers": answers, "changed": any(own.get("changed") for own in answers.values())}

    def _requests(self) -> dict[str, dict[str, Any]]:
        return {name: {"state": "requested", "request": self.args["request"], "worker_dir": own["worker_dir"],
                       "reason": self.settings["solver_reason"], "by": self.rollout["who"]["user"]}
                for name, own in self.workers.items() if name in self.rollout["hosts"]}
