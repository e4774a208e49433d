# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show how a fleet is, once, or again and again until the rollout that is under way has ended."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _status
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction

TICK_S = 0.2


class ActionModule(FleetAction):
    """Each look is shown as it is; the play fails where the last one is no success."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        every, as_json = self.settings["solver_status_watch"], self.settings["solver_status_format"] == "json"
        if as_json:
            self.begin_document()
        document = self._look()
        watched = document["rollout"] if every and (document["rollout"] or {}).get("state") == "running" else None
        reached_at = time.monotonic()
        while watched and _goes_on(document, watched, time.monotonic() - reached_at < self.settings["solver_lock_ttl"]):
            self._display.display(json.dumps(document) if as_json else "\n".join([*_status.lines(document), ""]))
            if not self._wait(every):
                return result | {"failed": True, "msg": "the controller's process is gone"}
            document = self._look()
            reached_at = time.monotonic() if document["fleet"]["reached"] else reached_at
        if as_json:
            # As it is, for programs: the callback would make it a part of its own words.
            self._display.display(json.dumps(document) if every else json.dumps(document, indent=2))
        return result | {"document": document, "document_shown": as_json, "problem": _status.problem(document, watched),
                         "msg": [] if as_json else _status.lines(document)}

    def _look(self) -> dict[str, Any]:
        fleet = self.each("worker_info", self.info_args(history=self.HISTORY), _entry.census)
        return _status.status(fleet, time.time(), self.dead_runs(fleet))

    def _wait(self, seconds: float) -> bool:
        """Return whether anybody still looks."""
        until = time.monotonic() + seconds
        while self.alive() and time.monotonic() < until:
            time.sleep(TICK_S)
        return self.alive()


def _goes_on(document: dict[str, Any], watched: dict[str, Any], lately: bool) -> bool:
    """Whether the run is at work, by a fresh lock. A fleet that was reached LATELY may come back, as long as a lock."""
    now = document["rollout"] or {}
    at_work = now.get("run_id") == watched["run_id"] and now["state"] == "running"
    return at_work if document["fleet"]["reached"] else lately
