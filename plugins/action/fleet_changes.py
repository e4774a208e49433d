# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show what the releases that were staged change, once for all workers that change alike."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._changes import changes
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import fleet_facts, plain


class ActionModule(ActionBase):  # type: ignore[misc]
    """Asks nobody: it reads what staging said of each worker."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec({
            "staged": {"type": "str", "required": True},
            "wheels": {"type": "list", "elements": "dict", "default": []}})
        known = task_vars or {}
        said = fleet_facts(known, known["ansible_play_hosts"], args["staged"])
        contents = {host: _entry.contents(own.get(args["staged"]), time.time()) for host, own in said.items()}
        diff = changes({host: own for host, own in contents.items() if own}, plain(args["wheels"]))
        # Ansible shows the diff of what is changed; what a plan shows is still to come.
        moved = any((own.get(args["staged"]) or {}).get("changed") for own in said.values())
        return result | {"changed": bool(diff) and (moved or bool(self._task.check_mode)), "diff": diff}
