# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The turn of a worker that really is verified, and only said to be drained, switched and reverted. For the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.action import worker_turn

Result = dict[str, Any]


class ActionModule(worker_turn.ActionModule):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        self.heard: dict[str, Result] = {"verify": {}, "worker": {}, "provider": {}}
        return {**super().run(tmp, task_vars), **self.heard}

    def call(self, module: str, args: Mapping[str, Any], limit: float, host: str = "") -> Result:
        if module != "worker_steps":
            said = self.heard["worker" if host else "provider"] = super().call(module, args, limit, host)
            return said
        done: dict[str, Result] = {}
        for step in args["steps"]:
            if step["name"] != "verify":
                done[step["name"]] = self._well(step["name"])
                continue
            said = super().call(module, {**args, "steps": [step]}, limit)
            self.heard["verify"] = done["verify"] = said["done_steps"]["verify"]
            if done["verify"].get("failed") or not done["verify"]["done"]:
                break
        return {"done_steps": done}

    def _well(self, step: str) -> Result:
        """Return what a step that goes well says, as far as anybody decides by it."""
        drained = {"worker": {"instance": {"version": self.planned["from"]}}} if step == "drain" else {}
        return {"changed": True, "done": True, "switched": step in ("switch", "revert"), **drained}
