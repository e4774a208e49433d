# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build the verdict of a rollout, write it and show it."""

from __future__ import annotations

from datetime import datetime, UTC
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.solver.fleet.plugins.plugin_utils._action import (
    fleet_facts,
    plain,
    write_json,
    write_refusal,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import (
    HOOK_FACTS,
    hook_failures,
    hook_line,
    last_gate,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import not_done, verdict, verdict_lines


class ActionModule(ActionBase):  # type: ignore[misc]
    """One document for every outcome."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        plan = plain(task_vars["solver_plan"])
        plan["ended_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = fleet_facts(task_vars, plan["workers"], "solver_outcome", "solver_back_outcome", "solver_gate",
                            "solver_final", "solver_back_gate", *HOOK_FACTS)

        def of(name: str) -> dict[str, Any]:
            return {host: own[name] for host, own in facts.items() if own.get(name)}

        plan["warnings"] += [hook_line(failure) for failure in hook_failures(facts)]
        shut = [own["solver_back_gate"]["reason"] for own in facts.values() if own.get("solver_back_gate")]
        reason = next((text for text in shut if text), "the rollback did not come to it")
        back = plain(task_vars.get("solver_back") or {})
        backs = {name: {"outcome": "failed", "cause": "unknown", "reason": reason}
                 for name in back.get("order", [])} | of("solver_back_outcome")
        document = verdict(plan, of("solver_outcome"), of("solver_final"), gate=last_gate(facts), backs=backs,
                           undone=bool(back.get("undoes", True)), check_mode=bool(self._task.check_mode))
        path = plain(task_vars["solver_rollout"])["settings"]["solver_verdict_file"]
        if path:
            self._write(path, document)
        result.update(changed=False, verdict=document, msg=verdict_lines(document),
                      not_done=not_done(document, plan), ansible_facts={"solver_verdict": document})
        return result

    def _write(self, path: str, document: dict[str, Any]) -> None:
        """A file that cannot be written is no reason to keep the lock; the hosts keep the verdict as well."""
        try:
            (write_refusal if self._task.check_mode else write_json)(path, document)
        except AnsibleActionFail as error:
            document["warnings"].append(f"the verdict is not in its file: {error.message}")
