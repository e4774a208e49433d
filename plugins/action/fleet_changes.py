# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show what the releases that were staged change, once for all workers that change alike."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._changes import changes_in
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import fleet_facts
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction


class ActionModule(FleetAction):
    """Asks nobody: it reads what staging said of each worker."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.options(tmp, task_vars, staged={"type": "str", "required": True},
                              wheels={"type": "list", "elements": "dict", "default": []})
        name = self.args["staged"]
        said = fleet_facts(self.task_vars, self.task_vars["ansible_play_hosts"], name)
        diff = changes_in({host: own.get(name) for host, own in said.items()}, self.args["wheels"], time.time())
        # Ansible shows the diff of what is changed; what a plan shows is still to come.
        moved = any((own.get(name) or {}).get("changed") for own in said.values())
        return result | {"changed": bool(diff) and (moved or bool(self._task.check_mode)), "diff": diff}
