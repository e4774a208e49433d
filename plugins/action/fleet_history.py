# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""List the rollouts that a fleet's workers remember, or bring the whole verdict of one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _runs
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import FleetAction
from ansible_collections.solver.fleet.plugins.plugin_utils._kept import kept_verdict

SCHEMA = "solver.history/1"


class ActionModule(FleetAction):
    """Reads alone. Each worker keeps the verdicts; any one of them will do."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars, rollout_id={"type": "str", "default": ""},
                            whole={"type": "bool", "default": False})
        if self.settings["solver_status_format"] == "json" and not self.args["whole"]:
            self.begin_document()
        answers = self.each("worker_info", self.info_args(history=self.HISTORY), _entry.census)
        if all(own.get("unreachable") for own in answers.values()):
            why = next(iter(answers.values()), {}).get("msg")
            return result | {"failed": True, "msg": "reading the history: no worker's host could be reached; "
                                                    f"see the inventory ({why})"}
        found, wanted = _runs.runs(answers), self.args["rollout_id"]
        if not wanted and not self.args["whole"]:
            return self._shown(result, {"schema": SCHEMA, "runs": found}, _runs.history_lines(found))
        run = _runs.chosen(found, wanted)
        if run is None:
            return result | {"failed": True, "msg": "reading the history: no worker has a verdict of "
                             + (wanted or "any rollout") + "; history.yml lists those that are kept"}
        if not (run["run_id"] or self.args["whole"]):
            return self._shown(result, {"schema": SCHEMA, "runs": [run]}, _runs.run_lines(run))
        document, wrong = self._whole(run) if run["run_id"] else (_runs.unended(run, answers), [])
        if document is None:
            return result | {"failed": True, "msg": f"reading the history: {'; '.join(wrong)}; the newer verdicts in "
                                                    "rollout/history of each worker may be whole"}
        return self._shown(result, document, _runs.shown_lines(document))

    def _shown(self, result: dict[str, Any], document: dict[str, Any], lines: list[str]) -> dict[str, Any]:
        as_json = self.settings["solver_status_format"] == "json" and not self.args["whole"]
        if as_json:
            self._display.display(json.dumps(document, indent=2))
        return result | {"document": document, "document_shown": as_json, "msg": [] if as_json else lines}

    def _whole(self, run: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the verdict from the first worker that has a whole one, or what is wrong with those that there are."""
        wrong: list[str] = []
        for name in run["kept_by"]:
            args = self.info_args(verdict_of=run["run_id"])[name]
            said = self.each("worker_info", {name: args}, _kept)[name]
            document = said.get("verdict")
            if document and (document["run_id"], document["verdict"]) == (run["run_id"], run["verdict"]):
                return document, []
            wrong.append(f"{name}: {'it is another verdict' if document else said.get('msg') or 'it is gone'}")
        return None, wrong[:3]


def _kept(raw: Any, _now: float) -> dict[str, Any]:
    """Let the verdict in; all else that the worker says is of no use here."""
    census = _entry.census(raw, time.time())
    if census.get("unreachable") or not isinstance(raw, dict):
        return {"unreachable": True, "msg": census.get("msg")}
    try:
        return {"verdict": kept_verdict(raw.get("verdict"))}
    except (ValueError, RecursionError) as error:
        return {"msg": str(error)}
