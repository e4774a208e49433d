# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write into the ledger that a hook of the user failed."""

from __future__ import annotations

from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._run import PARTS, RunAction


class ActionModule(RunAction):
    """The gate and the turn go by it, and the verdict tells it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        text = {"type": "str", "default": ""}
        result = self.begin(tmp, task_vars, part=PARTS, hook={"type": "str", "required": True}, worker=text,
                            task=text, reason=text, going_back={"type": "bool", "default": False})
        # What a task of a hook failed with may be a host's text.
        failure: dict[str, Any] = {name: one_line(self.args[name]) for name in ("hook", "worker", "task", "reason")}
        # What brings workers back is not stopped by a hook.
        failure["stops"] = self.args["hook"].startswith("before_") and not self.args["going_back"]
        with self.ledger.edit(self.args["part"]) as state:
            state.setdefault("hooks", []).append(failure)
        self.ledger.emit("hook_failed", **failure)
        said = f"The hook {failure['hook']} failed: {failure['reason']}"
        self._display.display(said)
        closes = failure["stops"] and failure["hook"] == "before_stage"
        return result | {"closes_stage": closes, "msg": said}
