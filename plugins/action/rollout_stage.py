# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stage the release of a rollout beside what each worker runs, on all that answer at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._changes import changes_in
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._fanout import (
    Call,
    call_all,
    call_on,
    do_on,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._wheels import bring
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order, listed
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import expanded
from ansible_collections.solver.fleet.plugins.plugin_utils._staging import (
    WrongVersionError,
    release_args,
    release_wheel,
)

UNIT = Path(__file__).resolve().parents[2] / "roles/worker/templates/solver-worker@.service.j2"
# What a host may need beyond solver_deploy_timeout, which the module keeps to by itself.
SPARE_S = 120.0


class ActionModule(RunAction):
    """Never fails for what a host says: the plan refuses with all reasons at once, and nothing has been drained yet."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars, wheels={"type": "dict", "required": True},
                            workers={"type": "list", "elements": "str", "required": True})
        wheels: dict[str, Any] = self.args["wheels"]
        if "wheels" not in wheels:
            why = wheels.get("msg") or "gathering the wheels ended without an answer"
            wheels = {"failed": True, "msg": why, "failure": wheels.get("failure")}
        names = in_order(self.args["workers"])
        try:
            wheel = {} if wheels.get("failed") else release_wheel(
                wheels["wheels"], self.rollout["package_name"], self.settings["solver_version"])
        except WrongVersionError as error:
            wheels = {"failed": True, "msg": str(error)}
        said = dict.fromkeys(names, wheels) if wheels.get("failed") else self._stage(names, wheel)
        now = time.time()
        staged = {name: _entry.staged(own, now) for name, own in said.items()}
        self.ledger.keep("staged", staged)
        lost = [name for name, own in staged.items() if own.get("failed") or own.get("unreachable") or own.get("wrong")]
        self.ledger.emit("staged", workers=len(names) - len(lost), of=len(names))
        diff = changes_in(said, wheels.get("wheels") or [], now)
        # Ansible shows the diff of what is changed; what a plan shows is still to come.
        changed = any(own.get("changed") for own in said.values()) or bool(diff and self._task.check_mode)
        return result | {"changed": changed, **({"diff": diff} if diff else {}),
                         "msg": f"staged on {len(names) - len(lost)} of {len(names)} workers"
                                + (f", not on {listed(lost)}" if lost else "")}

    def _stage(self, names: list[str], wheel: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        remote = {name: do_on(self, self.task_vars, name, functools.partial(self._bring, name, wheel))
                  for name in names if not self.workers[name]["on_controller"]}
        brought = self._everywhere("have the wheels", remote) if remote else {}
        lost = {name: own for name, own in brought.items() if own.get("failed") or own.get("unreachable")}
        unit = UNIT.read_text(encoding="utf-8")
        calls = {name: call_on(self, self.task_vars, name, "solver.fleet.worker_release", {
            **release_args(self.rollout, self.workers[name], wheel, unit), "contents": bool(self._task.diff)})
            for name in names if name not in lost}
        return self._everywhere("staged", calls) | lost

    def _bring(self, name: str, wheel: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        src, dest = expanded(self.settings["solver_wheelhouse"]), self.workers[name]["wheelhouse"]
        return bring(self, {"src": src, "dest": dest, **({"release": wheel["file"]} if wheel else {})}, variables)

    def _everywhere(self, done: str, calls: Mapping[str, Call]) -> dict[str, dict[str, Any]]:
        return call_all(calls, timeout=float(self.settings["solver_deploy_timeout"]) + SPARE_S, parallel=self.forks,
                        lanes=self.lanes, main=self.main, told=self.progress(done, len(calls)))
