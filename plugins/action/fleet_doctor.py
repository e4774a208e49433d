# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at every worker's machine and at the worker, and say what is wrong there and what mends it."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import StepError
from ansible_collections.solver.fleet.plugins.module_utils._release import PROGRAM
from ansible_collections.solver.fleet.plugins.module_utils._wheels import find_in_wheelhouse
from ansible_collections.solver.fleet.plugins.plugin_utils import _doctor, _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import expanded


class ActionModule(FleetAction):
    """Changes nothing. The play fails where something is bad."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        machines = self.each("host_look", {name: {
            "base_dir": own["base_dir"], "worker_python": own["python"] or None, "backend": own["service"]["backend"],
            "data_address": own["data_address"], "secrets": _secrets(own)}
            for name, own in self.workers.items() if name in self.rollout["hosts"]},
            lambda said, _now: said if said.get("unreachable") else {"machine": _doctor.machine(said)})
        now = time.time()  # when the ages of their answers were taken
        censuses = self.each("worker_info", self.info_args(), _entry.census)
        fleet = {name: _doctor.examined(
            self.workers[name], own.get("machine") or own, censuses.get(name) or {}, self.settings, now - own["age_s"])
            for name, own in machines.items()}
        controller = _doctor.wheels(self.settings, _versions(str(self.settings["solver_wheelhouse"])))
        lines = _doctor.lines(fleet, controller)
        return result | {"msg": lines, "bad": _doctor.is_bad(fleet, controller)}


def _secrets(own: dict[str, Any]) -> list[str]:
    provider = own["provider"]["api_key_file"]
    return sorted({*own["credentials"].values(), *([provider] if provider else [])})


def _versions(folder: str) -> list[str]:
    """Return which versions of the worker lie there; a wheelhouse that is not there yet has none."""
    try:
        return find_in_wheelhouse(expanded(folder), PROGRAM, None)[1]
    except StepError:
        return []
