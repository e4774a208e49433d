# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""One worker's update: what follows a failed step, and what became of the worker. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import CODES, cause_of, one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import BY_FORCE
from ansible_collections.solver.fleet.plugins.plugin_utils._fault import is_at_probe, verdict_of_probe
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome, PlannedWorker

# Results by the name of the step; C(in_flight) is a list, of the verify results of those in flight.
Results = Mapping[str, Any]

# The forward steps of one worker's update, in order.
STEPS = ("drain", "switch", "verify", "resume", "soak")
# The same where a standby takes over: what fails before the switch has not touched the worker.
STANDBY_STEPS = ("raise", "verify", "switch", "serve", "soak")
REVERT_STEPS = ("revert", "revert_verify", "revert_resume")
# All that may follow a failed step.
FOLLOW_UPS = ("drop", "give_back", "revert_drain", *REVERT_STEPS)

# The drain under which a worker holds a version that it does not know; nobody asked for it.
OWN_HOLD = "solver-worker"
# Another run holds the rollout's lock: this one has no business here any more, and must touch nothing.
FENCED = "fenced"


def code_of(result: Mapping[str, Any] | None) -> str:
    """Return the stable code of a module's failure, or nothing."""
    return str(((result or {}).get("failure") or {}).get("code") or "")


def step_ok(result: Mapping[str, Any] | None) -> bool:
    """Whether the result of a step says that the step is done."""
    if not result or result.get("skipped"):
        return False
    return not (result.get("failed") or result.get("unreachable")) and result.get("done", True) is True


def failed_step(results: Results) -> str | None:
    """Return the first forward step that is not done, be it that it failed or that it has no result."""
    if (results.get("settle") or {}).get("unreachable"):
        return "settle"
    for name in STANDBY_STEPS if results.get("raise") else STEPS:
        result = results.get(name)
        if not result:
            return name if name != "soak" else None
        if not step_ok(result):
            return name
    return None


def next_action(results: Results, revertible: bool = True, planned: PlannedWorker | None = None) -> str:
    """Decide what follows a failed step: ``revert``, ``resume``, ``drop`` (its standby) or ``nothing`` more.

    An unreachable worker is left alone: its lease brings it back, and the operator hears its name. So is one that
    somebody else holds by now. Where nothing is left to go back to (not REVERTIBLE), a worker that was switched stays
    held, which is quarantine.
    """
    step = failed_step(results)
    if step is None:
        return "nothing"
    result = results.get(step) or {}
    if result.get("unreachable") or code_of(result) == FENCED or another_took_it(step, result):
        return "nothing"
    begun = planned is not None and switched_before(planned)
    if results.get("raise"):
        action = _beside(step, result)
    else:
        action = _after_drain(result, begun) if step == "drain" else _after_switch(results, step, result, begun)
    stays = action == "resume" and planned is not None and planned.get("stays_held")
    return "nothing" if stays or (action == "revert" and not revertible) else action


def _beside(step: str, result: Mapping[str, Any]) -> str:
    """What follows where the new release was beside the worker, or had taken over from it."""
    return "drop" if step in ("raise", "verify") or (step == "switch" and untouched(result)) else "revert"


def switched_before(planned: PlannedWorker) -> bool:
    """Whether an interrupted run switched the worker already: it runs what it is to be taken to, unverified."""
    back = planned.get("back_to")
    return bool(back) and planned.get("from_release") == planned.get("release") != back


def another_took_it(step: str, result: Mapping[str, Any]) -> bool:
    """Whether somebody else drained the worker after we had put it back into service, or took our drain over."""
    if step == "resume":
        return code_of(result) == "foreign_drain"
    drain = ((result.get("worker") or {}).get("drain") or {}) if step == "soak" else {}
    return code_of(result) == "unexpected_state" and bool(drain) and drain.get("owner") != OWN_HOLD


def _after_drain(result: Mapping[str, Any], begun: bool) -> str:
    # worker_drain gives back what its own call took; an earlier call may have begun the drain.
    left = result.get("gave_back") or code_of(result) == "foreign_drain" or not result
    return "nothing" if left or begun or unverified(result) else "resume"


def _after_switch(results: Results, step: str, result: Mapping[str, Any], begun: bool) -> str:
    if begun or unverified(results.get("drain") or {}):
        return "nothing" if step == "switch" and untouched(result) else "revert"
    if step == "switch" and untouched(result):
        return "resume"
    return "revert" if step == "switch" or not untouched(results.get("switch") or {}) else "nothing"


def untouched(switch: Mapping[str, Any]) -> bool:
    """Whether the switch said that it changed nothing; a module that died without a word may have."""
    return switch.get("switched") is False and not switch.get("restarted")


def unverified(drained: Mapping[str, Any]) -> bool:
    """Whether the drained process is of another version than the one whose drain it is: it must not just resume."""
    worker = drained.get("worker") or {}
    drain = worker.get("drain") or {}
    return bool(drain.get("version")) and drain["version"] != (worker.get("instance") or {}).get("version")


def fault_of(results: Results) -> dict[str, Any] | None:
    """Return whose fault a failed probe is, or nothing where no probe failed."""
    return verdict_of_probe(results) if is_at_probe(results) else None


def outcome(planned: PlannedWorker, results: Results, revertible: bool = True) -> Outcome:
    """Return what became of one worker, from the results of its steps."""
    step = failed_step(results)
    drain, switch = results.get("drain") or {}, results.get("switch") or {}
    out: Outcome = {
        "outcome": "updated", "cause": None, "reason": "", "step": step,
        "from": planned.get("from"), "to": planned.get("to"),
        "open_at_drain": drain.get("open_at_drain"),
        "timings": {name: float(result["elapsed_s"]) for name, result in results.items()
                    if isinstance(result, Mapping) and result.get("elapsed_s") is not None},
        "totals_before": switch.get("totals_before"),
        "log": [],
    }
    if step is None:
        return out
    result = results.get(step) or {}
    fault = fault_of(results) or {}
    out["reason"] = f"{step}: {_said(result, fault) or 'not finished in time'}"
    if fault:
        out["reason"] += f"; {one_line(fault['reason'])}"
    out["log"] = _log_lines(result)
    # A host that shuts down ends the worker first, then its line: the release is blamed only by a reference solve.
    lost = lost_in_follow_up(results) and fault.get("fault") != "release"
    out["cause"] = "host" if lost else _cause(step, results, fault)
    out["outcome"] = _failed_outcome(planned, results, fault, revertible)
    if lost_in_follow_up(results) or out["outcome"] == "quarantined":
        out["reason"] += "; " + _revert_reason(results, revertible)
    undrained = step == "drain" and code_of(result) == "hung"
    if not planned.get("forced") and (undrained or out["outcome"] == "quarantined"):
        out["reason"] += f"; {BY_FORCE}"
    return out


def went_back(planned: PlannedWorker, results: Results, why: str) -> Outcome:
    """Return what became of a worker that did not fail, and went back with those that it went together with."""
    came_from = planned["back_version"] or planned["from"]
    back = step_ok(results.get("give_back")) or all(step_ok(results.get(name)) for name in REVERT_STEPS)
    lost = lost_in_follow_up(results)
    out: Outcome = {**outcome(planned, results), "outcome": "rolled_back", "cause": None, "step": None, "log": [],
                    "reason": f"returned to {came_from} with all others; {why}"}
    if back:
        return out
    return {**out, "outcome": "unreachable" if lost else "quarantined", "cause": "host" if lost else "unknown",
            "step": "revert", "reason": f"could not be returned to {came_from}: {_revert_reason(results, True)}; {why}"}


def _said(result: Mapping[str, Any], fault: Mapping[str, Any]) -> str:
    """What the step said, without its own guess whose fault it is where a reference solve knows better."""
    said = one_line(result.get("msg"))
    guess = "; the fault is "
    return said.partition(guess)[0] if fault.get("by_reference") else said


def _cause(step: str, results: Results, fault: Mapping[str, Any]) -> str:
    result = results.get(step) or {}
    if result.get("unreachable"):
        return "host"
    if fault:
        return "release" if fault["fault"] == "release" else "unknown"
    cause = _declared(result)
    # A release is to blame only for what happened after it was switched to.
    before = step == "drain" or (step == "switch" and untouched(result) and not results.get("raise"))
    return "drain" if cause == "release" and (before or another_took_it(step, result)) else cause


def _declared(result: Mapping[str, Any]) -> str:
    """What a step that did not succeed is blamed on, by its own word; what was not done in time has no failure."""
    if result.get("failed") or not result:
        return cause_of(result.get("failure"))
    return CODES["deadline"]


def _failed_outcome(planned: PlannedWorker, results: Results, fault: Mapping[str, Any], revertible: bool) -> str:
    step = str(failed_step(results))
    if (results.get(step) or {}).get("unreachable"):
        return "unreachable"
    action = next_action(results, revertible, planned)
    if lost_in_follow_up(results):
        return "unreachable"
    if action == "drop":
        return _dropped_outcome(_cause(step, results, fault), fault)
    if action == "nothing":
        return "failed" if revertible or step == "drain" else "quarantined"
    if action == "resume":
        return "failed" if step_ok(results.get("give_back")) else "quarantined"
    return _reverted_outcome(results, fault)


def _reverted_outcome(results: Results, fault: Mapping[str, Any]) -> str:
    if not all(step_ok(results.get(name)) for name in REVERT_STEPS):
        return "quarantined"
    return "returned" if fault.get("inconclusive") else "reverted"


def _dropped_outcome(cause: str, fault: Mapping[str, Any]) -> str:
    """The worker was never touched: a release that failed beside it is refused, as if it had been reverted."""
    return "returned" if fault.get("inconclusive") else "reverted" if cause == "release" else "failed"


def lost_in_follow_up(results: Results) -> bool:
    """Whether the worker was lost in what followed its failure: its lease brings it into service."""
    return any((results.get(name) or {}).get("unreachable") for name in FOLLOW_UPS)


def _revert_reason(results: Results, revertible: bool) -> str:
    lost = [name for name in ("revert_drain", "drop") if (results.get(name) or {}).get("unreachable")]
    for name in (*lost, *REVERT_STEPS, "give_back"):
        result = results.get(name)
        if result and not step_ok(result):
            return f"{name.replace('_', ' ')} failed: {one_line(result.get('msg'))}"
    return "it could not be brought back" if revertible else "it is held; a rollback has nothing to go back to"


def _log_lines(result: Mapping[str, Any]) -> list[str]:
    details = (result.get("failure") or {}).get("details") or {}
    log = details.get("log") or []
    return [str(line) for line in log][-20:] if isinstance(log, Sequence) and not isinstance(log, str) else []
