# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What the actions of one rollout share: the ledger of the run, and calls of modules on all workers at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._fanout import run_everywhere
from ansible_collections.solver.fleet.plugins.plugin_utils._ledger import Ledger
from ansible_collections.solver.fleet.plugins.plugin_utils._program import CONNECT_S

Json = dict[str, Any]
# Takes a module's result in, and the time of day by which its dates are judged.
Read = Callable[[Any, float], Any]
# The two parts of a rollout, and the document of the ledger that holds each one's plan.
PLAN_OF = {"roll": "plan", "back": "plan-back"}
PARTS: Json = {"type": "str", "choices": list(PLAN_OF), "default": "roll"}


class RunAction(ActionBase):  # type: ignore[misc]
    """An action of the controller that works on the ledger which O(ledger) names."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def begin(self, tmp: str | None, task_vars: Json | None, **options: Json) -> Json:
        """Read the options and the ledger; return the result to fill."""
        result: Json = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        _unused, args = self.validate_argument_spec({"ledger": {"type": "path", "required": True}, **options})
        self.args: Json = plain(args)
        self.main = os.getppid()
        self.ledger = Ledger(self.args["ledger"])
        self.rollout = self.ledger.read("rollout")
        self.settings: Json = self.rollout["settings"]
        self.workers: dict[str, Json] = self.rollout["workers"]
        return result | {"changed": False}

    @property
    def forks(self) -> int:
        return max(1, int(self.task_vars.get("ansible_forks") or 5))

    @property
    def wait_s(self) -> float:
        """Seconds for which the operator still wants to wait for another rollout."""
        return max(0.0, float(self.rollout["wait_until"]) - time.monotonic())

    @property
    def lanes(self) -> dict[str, str]:
        """Which machine each worker is on; nothing is to be spared where no connection is made."""
        return {name: own["machine"] for name, own in self.workers.items() if own["machine"] != "local"}

    @property
    def look_s(self) -> float:
        """When one look at a worker has taken too long: the connection, the module, the worker's own answer."""
        return CONNECT_S + 4 * float(self.settings["solver_control_timeout"])

    def everywhere(self, module: str, args: Mapping[str, Mapping[str, Any]], read: Read) -> dict[str, Json]:
        """Run a module on many workers at once. One that is silent is asked once more before it is called lost."""
        def ask(some: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
            return run_everywhere(self, self.task_vars, f"solver.fleet.{module}", some, timeout=self.look_s,
                                  parallel=self.forks, lanes=self.lanes)

        found = ask(args)
        silent = {name: args[name] for name, own in found.items() if own.get("unreachable")}
        now = time.time()
        return {name: dict(read(own, now)) for name, own in {**found, **(ask(silent) if silent else {})}.items()}

    def info_args(self) -> dict[str, Json]:
        """Return the options of worker_info for each worker."""
        return {name: {"control_socket": own["control_socket"], "worker_dir": own["worker_dir"],
                       "control_timeout": self.settings["solver_control_timeout"], "service": own["service"]}
                for name, own in self.workers.items() if name in self.rollout["hosts"]}

    def hook_failures(self) -> list[Json]:
        return [failure for part in PLAN_OF for failure in self.ledger.read(part).get("hooks", [])]

    def outcomes(self, part: str) -> dict[str, Json]:
        """Return what became of each worker so far, in full; one that is still at it was interrupted."""
        state = self.ledger.read(part)
        began = {name: {"outcome": "unknown", "cause": "unknown", "reason": "the update was interrupted"}
                 for name, phase in state.get("phase", {}).items() if phase != "left"}
        return began | {name: self.ledger.read(outcome_document(part, name)) for name in state.get("brief", {})}


def outcome_document(part: str, name: str) -> str:
    """Return the name under which the ledger keeps a worker's outcome; an inventory name may hold anything."""
    return f"{part}-{quote(name, safe='')}"
