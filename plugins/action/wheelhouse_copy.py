# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask a host once which wheels it lacks, and bring those in one transfer."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._controller._wheels import bring

# The host's own options are for it to read: a path there is nothing that the controller may expand.
OPTIONS = {"src": {"type": "path", "required": True}, "dest": {"type": "str", "required": True},
           "release": {"type": "str"}}


class ActionModule(ActionBase):  # type: ignore[misc]
    # A folder for what is on its way is made when something is.
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(OPTIONS)
        return result | bring(self, args, task_vars or {})
