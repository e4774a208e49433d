# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Who holds the fleet, and whom a rollout locks. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._record import WAIT_OR_STEAL, in_words
from ansible_collections.solver.fleet.plugins.plugin_utils._locks import dead_on
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import Fleet, roster_of
from ansible_collections.solver.fleet.plugins.plugin_utils._types import LockPlan, Plan, PlannedWorker, Stage


def live_locks(fleet: Fleet, settings: Mapping[str, Any], dead: Iterable[str]) -> list[str]:
    """Say which rollout holds the fleet, unless it is proven dead or may be taken over."""
    if settings["solver_lock_steal"]:
        return []
    by_run: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    holders = holders_of(fleet)
    for name in in_order(holders):
        if holders[name]["run_id"] not in dead:
            by_run.setdefault(str(holders[name]["run_id"]), (holders[name], []))[1].append(name)
    return [f"{in_words(holder, what=', '.join(names))}; {WAIT_OR_STEAL}" for holder, names in by_run.values()]


def holders_of(fleet: Fleet) -> dict[str, Mapping[str, Any]]:
    """Return the live lock on each worker that is held."""
    found = {name: holder_of(facts.get("census") or {}) for name, facts in fleet.items()}
    return {name: holder for name, holder in found.items() if holder}


def holder_of(census: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the live lock on a worker; one whose time has run out is none."""
    if census.get("lock_state") != "held":
        return None
    return (census.get("rollout") or {}).get("lock")


def lock_plan(
    fleet: Fleet, workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any], run: Mapping[str, Any],
) -> LockPlan:
    """Return whom to lock, the first by name before all others, so that two rollouts meet there."""
    names = [name for name, worker in workers.items() if worker["action"] != "unreachable"]
    roster = set(roster_of(fleet)) | set(fleet)
    base = set(fleet) if settings["solver_allow_partial"] else roster - set(settings.get("solver_forget") or [])
    return {
        "workers": names,
        "leader": names[0] if names else None,
        "needed": len(base) // 2 + 1,
        "dead_runs": {name: dead_on(name, holders_of(fleet), run["dead_runs"]) for name in names},
        "roster": sorted((set(fleet) | roster) - set(settings.get("solver_forget") or [])),
        "unsure": [],
    }


def lock_refusals(plan: Plan, locks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say why the rollout does not hold the fleet: LOCKS maps each worker to what rollout_lock said, or nothing."""
    refused: dict[str, list[str]] = {}
    lost = lost_while_locked(plan, locks)
    for name in plan["lock"]["workers"]:
        if name not in lost and not _is_ours(locks[name]):
            refused.setdefault(one_line(locks[name].get("msg")) or "its lock could not be taken", []).append(name)
    out = [f"{', '.join(names)}: {reason}" for reason, names in refused.items()]
    bake = plan.get("bake")
    canaries = [name for name in lost if bake and name in bake["canaries"] and name in locks]
    if canaries and not out:
        out.append(f"{', '.join(canaries)} was to be a canary, and {lost[canaries[0]]}; run the same command again")
    return out or _too_few(len(plan["lock"]["workers"]) - len(lost), plan["lock"])


def lost_while_locked(plan: Plan, locks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return whose lock may be ours or nobody's, because no answer came that says so, and why."""
    answers = {name: locks.get(name) or {} for name in plan["lock"]["workers"]}
    return {name: f"was lost while the lock was taken: {one_line(answer.get('msg')) or 'it was not asked'}"
            for name, answer in answers.items() if not answer or answer.get("unreachable") or answer.get("wrong")}


def without(plan: Plan, lost: Collection[str]) -> Plan:
    """Return the plan without the turns of those that were LOST while they were locked: a later run takes them up."""
    bake = plan["bake"]
    if bake:
        bake = {**bake, "control": [name for name in bake["control"] if name not in lost]}
    stages: list[Stage] = [{**stage, "workers": [name for name in stage["workers"] if name not in lost]}
                           for stage in plan["stages"]]
    held = [name for name in plan["lock"]["workers"] if name not in lost]
    return {**plan, "stages": stages, "bake": bake, "lock": {**plan["lock"], "workers": held, "unsure": in_order(lost)}}


def _is_ours(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("ours")) and not answer.get("failure")


def majority_refusals(workers: Mapping[str, Mapping[str, Any]], lock: Mapping[str, Any]) -> list[str]:
    """Say already in the plan that too few workers can be asked to lock the fleet, and why they cannot."""
    lost = {name: worker["reason"] for name, worker in workers.items() if worker["action"] == "unreachable"}
    why = [f"{name} cannot be reached: {reason}" for name, reason in islice(lost.items(), 3)]
    return [f"{text} ({'; '.join(why)})" if why else text for text in _too_few(len(lock["workers"]), lock)]


def _too_few(held: int, lock: Mapping[str, Any]) -> list[str]:
    if held >= lock["needed"]:
        return []
    return [f"only {held} of the fleet's workers could be locked, {lock['needed']} are needed so that "
            "no other rollout can begin; bring the workers back, or set solver_allow_partial: true"]


def quicker(locks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether another run came first: one that is over by and by, so that waiting and planning again helps."""
    return any(str((answer.get("failure") or {}).get("code")) in ("held", "changed") for answer in locks.values())
