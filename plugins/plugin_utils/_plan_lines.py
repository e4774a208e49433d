# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The plan in words, and what it warns of. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._drain import P99_MARGIN
from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import mixed_warning
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import Fleet
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Plan, PlannedWorker, Stage

STOPPING = ("to stop it: pause.yml or abort.yml, in another terminal. After Ctrl-C run the same command again to "
            "go on, or recover.yml to put back into service whom it left drained")


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as lines for people."""
    what = {"update": "update", "rollback": "roll back", "recover": "recover"}[plan["kind"]]
    lines = [
        f"{plan['fleet']} workers, {len(plan['order'])} to {what} to {plan['target']}, "
        f"{plan['window']} at a time, at least {plan['floor']} keep serving; "
        f"up to {plan['tolerated']} may fail ({plan['budget_percent']:g} %)"]
    lines += _switch_lines(plan)
    if plan["strategy"] != "rolling":
        lines[0] = f"{plan['strategy']}: {lines[0]}"
    if plan["stop_s"] is not None:
        lines += _stop_lines(plan)
    if plan["continued"]:
        lines.append(f"continues rollout {plan['rollout_id']}")
    for number, stage in enumerate(plan["stages"], 1):
        place = f"stage {number}{_kind_of(stage)}: " if len(plan["stages"]) > 1 else ""
        moves = [*(_move(name, plan["workers"][name]) for name in stage["workers"]),
                 *(f"{name} runs it already" for name in stage["there"])]
        lines += [place + ", ".join(moves), *_after(plan, stage)]
    if plan["order"]:
        lines.append(f"about {minutes(plan['estimate_s'])}, by the workers' own solve times; {plan['probes']} probe "
                     f"solve{'s' if plan['probes'] != 1 else ''} to pay for, more if one fails")
    lines += [f"{name}: {worker['action']} ({worker['reason']})" for name, worker in plan["workers"].items()
              if worker["action"] != "update"]
    lines += [f"warning: {text}" for text in plan["warnings"]]
    return lines + ([STOPPING] if plan["order"] else [])


def _switch_lines(plan: Plan) -> list[str]:
    standbys = sum(1 for name in plan["order"] if plan["workers"][name]["switch"] == "standby")
    if not standbys:
        return []
    return [f"by a standby (solver_switch): raised and verified beside the worker, which serves until it takes over; "
            f"up to {min(standbys, plan['surge'])} at once, each with the memory of a second process (solver_surge)"]


def _stop_lines(plan: Plan) -> list[str]:
    """Say what happens where all go together."""
    pilot, *others = plan["stages"][0]["workers"]
    who = f"the {len(others)} others" if len(others) > 3 else ", ".join(others)
    then = [f"3. {who}: switched and verified"] if others else []
    return [f"nobody serves for about {minutes(plan['stop_s'] or 0.0)} (solver_accept_downtime); no two versions ever "
            "serve at once, and if one worker fails all go back",
            "1. all are drained at once, and their open tasks handed over",
            f"2. {pilot} alone is switched and verified", *then, f"{len(then) + 3}. all serve again"]


def _kind_of(stage: Stage) -> str:
    return " (canaries; none may fail)" if stage["after"] == "bake" else ""


def _after(plan: Plan, stage: Stage) -> list[str]:
    """Say what follows on a stage."""
    bake, promote = plan["bake"], plan["promote"]
    if stage.get("barrier"):
        return _flip_lines(plan, stage)
    if stage["after"] == "nothing":
        return []
    if promote == "now":
        return ["then the next stage begins at once (solver_promote: now)"]
    if bake and bake["judged"]:
        return [f"then nothing is left to compare: {bake['judged']['word']}, judged at {bake['judged']['at']}"]
    then = ["then the rollout ends as awaiting_promotion (solver_promote: manual)"] if promote == "manual" else []
    if not bake:
        return then
    about = f"; about {minutes(bake['needs_s'])} at today's traffic" if bake["needs_s"] else ""
    others = f"the {len(bake['control'])} others" if len(bake["control"]) > 3 else ", ".join(bake["control"])
    return [f"then they are compared with {others} for at least {minutes(bake['bake_s'])} and until "
            f"{bake['min_tasks']} tasks have ended on both sides{about} ({bake['traffic']}), at most "
            f"{minutes(bake['max_s'])}" + (", from where an earlier run was" if bake["baselines"] else ""), *then]


def _flip_lines(plan: Plan, stage: Stage) -> list[str]:
    """Say what follows when all standbys are verified."""
    if plan["promote"] == "manual":
        return ["when all standbys are verified, the rollout ends as awaiting_promotion (solver_promote: manual); they "
                "stand by for as long as solver_drain_lease"]
    keep = float(plan["blue_keep"])
    stays = f"; the old release then stands by for {minutes(keep)} (solver_blue_keep)" if keep else ""
    return [f"when all standbys are verified, {min(stage['window'], len(stage['workers']))} at a time take over "
            f"(solver_flip){stays}"]


def _move(name: str, worker: PlannedWorker) -> str:
    why = f" ({worker['reason']})" if worker["reason"] else ""
    return f"{name} {worker['from'] or '?'} -> {worker['to']}{why}"


def minutes(seconds: float) -> str:
    """Return a duration in the words of a plan."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def warnings_of(
    workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any], run: Mapping[str, Any],
) -> list[str]:
    out = _forks_warning(sum(1 for worker in workers.values() if worker["action"] == "update"), settings,
                         int(run["forks"]))
    out += mixed_warning(worker["from"] for worker in workers.values())
    silent = [name for name, worker in workers.items() if worker["action"] == "unreachable"]
    if silent:
        out.append(f"{', '.join(silent)} cannot be reached: counted as failed, and not known to be out of service")
    return out + _deadline_warning(workers, settings)


def _forks_warning(todo: int, settings: Mapping[str, Any], forks: int) -> list[str]:
    """A worker in its turn, one in its soak and the next one at the gate are each a process of the controller."""
    soaking = int(settings["soaking"]) if settings["solver_min_healthy_time"] else 0
    wanted = min(todo, int(settings["window"]) + soaking + 1)
    if forks < wanted:
        return [f"forks is {forks}, so the window of {settings['window']} is not always full; use --forks {wanted}"]
    if min(forks, todo) > 4 * wanted and forks > 16:
        return [f"forks is {forks}; those that only wait cost the controller time, --forks {wanted} suffices"]
    return []


def _deadline_warning(workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any]) -> list[str]:
    """A drain that is shorter than the longest solve plus a buffer ends in a hand-over or a failure."""
    slow = [float(worker["p99_s"]) for worker in workers.values() if worker["p99_s"]]
    needed = max(slow, default=0.0) * P99_MARGIN
    if settings["solver_drain_mode"] == "handover" or needed <= settings["solver_drain_timeout"]:
        return []
    return [f"99 % of the solves take up to {max(slow):.0f} s; solver_drain_timeout "
            f"{settings['solver_drain_timeout']:g} leaves no margin, {needed:.0f} would"]


def fragile_warnings(fleet: Fleet) -> list[str]:
    """Name the workers whose release could not be started again, each cause once: a failed update needs it, too."""
    problems = {name: one_line((fleet[name].get("census") or {}).get("release_problem")) for name in in_order(fleet)}
    return [f"{', '.join(name for name, own in problems.items() if own == problem)} would not survive a restart, and "
            f"could not go back to what runs: {problem}; provision.yml with the version that runs mends it"
            for problem in dict.fromkeys(problems.values()) if problem]
