# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at every worker once more, give the verdict, keep it on the hosts and give the lock back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, UTC
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.solver.fleet.plugins.plugin_utils import _entry
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import write_json, write_refusal
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._report_file import write_metrics, write_report
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import closed_gate, hook_line
from ansible_collections.solver.fleet.plugins.plugin_utils._program import given
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import PLAN_OF, RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome, Plan
from ansible_collections.solver.fleet.plugins.plugin_utils._story import tell
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import (
    NO_STORY,
    not_done,
    stats_of,
    verdict,
    verdict_lines,
)


class ActionModule(RunAction):
    """One document for every outcome."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars)
        self.plan: Plan = self.ledger.read("plan")
        if not self.plan:
            return result | {
                "failed": True, "msg": "nothing was planned in this run, so there is nothing to judge; run the "
                                       "playbook from its beginning, without --start-at-task"}
        checks = bool(self._task.check_mode)
        self.ledger.emit("judging")
        final = {} if checks else self.everywhere("worker_info", self.info_args(), _entry.census)
        document = self._judge(final, checks)
        if not checks:
            document["warnings"] += self._for_others(document)
        if self.settings["solver_verdict_file"]:
            self._write(document, checks)
        self.ledger.emit("verdict", verdict=document["verdict"], reasons=document["reasons"],
                         lines=verdict_lines(document))
        if not checks:
            self._give_back(document, final)
        self.ledger.emit("ended")
        return result | {"verdict": document, "msg": verdict_lines(document),
                         "stats": stats_of(document, self.settings["solver_hosts"]),
                         "not_done": not_done(document, self.plan)}

    def _judge(self, final: dict[str, Any], checks: bool) -> dict[str, Any]:
        story = self._story(final)
        state, back = self.ledger.read("roll"), self.ledger.read(PLAN_OF["back"])
        plan: Plan = {**self.plan, "ended_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        plan["warnings"] = plan["warnings"] + [hook_line(failure) for failure in self.hook_failures()]
        shut = self.ledger.read("back").get("closed", {}).get("reason") or "the rollback did not come to it"
        backs: dict[str, Outcome] = {
            name: {"outcome": "failed", "cause": "unknown", "reason": shut} for name in back.get("order", [])}
        gate = closed_gate(state["closed"], state["hooks"]) if state else {}
        return verdict(plan, self.outcomes("roll"), final, gate=gate, backs=backs | self.outcomes("back"),
                       undone=bool(back.get("undoes", True)), check_mode=checks, story=story,
                       judgement=state.get("judgement"))

    def _story(self, final: dict[str, Any]) -> Mapping[str, Any]:
        """What happened when is for people: a mistake of ours in it must not cost them their verdict."""
        try:
            return tell(self.plan, self.ledger.told(), final)
        except Exception as error:  # noqa: BLE001
            self.plan["warnings"] = [*self.plan["warnings"], f"our own code failed at what happened when: {error!r}"]
            return NO_STORY

    def _for_others(self, document: Mapping[str, Any]) -> list[str]:
        """Write the report and the metrics; return a line for each that is not there."""
        report, metrics = self.settings["solver_report_file"], self.settings["solver_metrics_file"]
        said = write_report(report, document) if report else []
        return said + (write_metrics(metrics, lambda: document, running=False) if metrics else [])

    def _write(self, document: dict[str, Any], checks: bool) -> None:
        """A file that cannot be written is no reason to keep the lock; the hosts keep the verdict as well."""
        try:
            (write_refusal if checks else write_json)(self.settings["solver_verdict_file"], document)
        except AnsibleActionFail as error:
            document["warnings"].append(f"the verdict is not in its file: {error.message}")

    def _give_back(self, document: dict[str, Any], final: dict[str, Any]) -> None:
        """A lock that cannot be given back ends by its time."""
        own = {worker["name"]: worker for worker in document["workers"]}
        lock = self.plan["lock"]
        names = [name for name in (*lock["workers"], *lock["unsure"]) if not final.get(name, {}).get("unreachable")]
        self.everywhere("rollout_lock", {name: given(
            state="released", worker_dir=self.workers[name]["worker_dir"], rollout_id=self.plan["rollout_id"],
            run_id=self.plan["run_id"], kind=self.plan["kind"], roster=self.plan["lock"]["roster"],
            outcome=own[name]["outcome"], cause=own[name]["cause"], outcome_reason=own[name]["reason"],
            # A run that had nothing to do must not push out of the history those that had.
            verdict=document, history=bool(self.plan["order"])) for name in names}, _entry.lock_answer, "given back",
            to_the_end=True)
