# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a module on many hosts at once, and write down what came back. For the tests alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._fanout import run_everywhere


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        results = run_everywhere(self, task_vars, asked["module"], asked["each"], timeout=float(asked["timeout"]),
                                 parallel=int(asked["parallel"]))
        Path(asked["write"]).write_text(json.dumps(results), encoding="utf-8")
        return {**result, "changed": False}
