# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide after the turns which workers go back to where they came from."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _view
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import back_plan, closed_gate
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import PLAN_OF, RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Plan
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import closed_by


class ActionModule(RunAction):
    """An abort for the release's sake returns all that this rollout updated; any end, whom a dead run left drained."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        plan: Plan = self.ledger.read("plan")
        state = self.ledger.read("roll")
        if not state:  # a plan that is not followed
            return result | {"workers": [], "msg": "nothing to roll back"}
        outcomes = self.outcomes("roll")
        gate = closed_gate(state["closed"], state["hooks"])
        closed = closed_by(plan, outcomes, gate) or {}
        back = back_plan(plan, outcomes, str(closed.get("cause") or ""), self.settings["solver_on_abort"],
                         _view.dead(self.ledger.read("view")))
        self.ledger.keep(PLAN_OF["back"], back)
        self.ledger.keep("back", _admit.begin(time.monotonic()))
        names = ", ".join(back["order"])
        self.ledger.emit("back", workers=back["order"], **({"cause": closed["cause"]} if closed else {}))
        return result | {"workers": back["order"],
                         "msg": f"rolling back {names}: {closed['reason']}" if names else "nothing to roll back"}
