# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask every worker how it is, before anything is touched; wait for another rollout to end where that was asked for."""

from __future__ import annotations

import random
import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import live_locks
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import RunAction


class ActionModule(RunAction):
    """Never fails for what it sees: the play refuses, or begins again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        census = self._census()
        locked = self._locked(census)
        while locked and not self._task.check_mode and self.wait_s > 0:
            self.ledger.emit("waiting", reason=locked[0])
            self.tell(f"waiting for another rollout, {self.wait_s:.0f} s left: {locked[0]}")
            # Two that wait for the same rollout do not come back at the same moment.
            time.sleep(min(random.uniform(4, 8), max(0.5, self.wait_s)))  # noqa: S311  no secret is made of it
            if not self.alive():
                return result | {"failed": True, "msg": "the controller's process is gone"}
            census = self._census()
            locked = self._locked(census)
        self.ledger.keep("staged", {})
        self.ledger.keep("census", census)
        self.ledger.keep("looked", {"at": time.monotonic()})
        answering = [name for name, own in census.items() if not own.get("unreachable") and not own.get("failed")]
        self.ledger.emit("looked", answering=len(answering), of=len(census))
        return result | {"answering": answering, "locked": locked,
                         "msg": "; ".join(locked) or f"{len(answering)} of {len(census)} workers answer"}

    def _census(self) -> dict[str, Any]:
        return self.everywhere("worker_info", self.info_args(), _entry.census)

    def _locked(self, census: dict[str, Any]) -> list[str]:
        fleet = {name: {"census": own} for name, own in census.items()}
        return live_locks(fleet, self.settings, self.dead_runs(census))
