# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The plan of a rollout, from the census of the fleet and the settings. Pure functions of plain data."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import (
    Decision,
    converge,
    known_rollouts,
    lacking,
    left_beside,
    on_drain_timeout,
    recover,
    return_target,
    rollout_of,
    serving,
    takes_no_drain,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import TOGETHER
from ansible_collections.solver.fleet.plugins.plugin_utils._locks import continuable
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order, natural
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import fragile_warnings, warnings_of
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import live_locks, lock_plan, majority_refusals
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import (
    Fleet,
    memory_refusals,
    moving_refusals,
    roster_refusals,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._step import switched_before
from ansible_collections.solver.fleet.plugins.plugin_utils._strategy import Going, shape, stands_by, strategy_of
from ansible_collections.solver.fleet.plugins.plugin_utils._together import headings, parting_warnings, settings_of
from ansible_collections.solver.fleet.plugins.plugin_utils._types import BakePlan, Plan, PlannedWorker, Stage

# A rollout with one of these verdicts is over; everything else goes on under its id when its target is asked for again.
OVER = frozenset({"rolled_back", "rollback_failed", "superseded"})
# Without the worker's own measurements these stand in the estimate.
RESTART_S = 5.0
PROBE_S = 10.0
TAKE_OVER_S = 1.0
# A hand-over waits for what is on the wire alone.
DRAIN_S = 1.0


def make_plan(fleet: Fleet, settings: Mapping[str, Any], run: Mapping[str, Any]) -> Plan:
    """Return what the rollout will do. FLEET maps each worker to its ``census`` and ``staged`` results.

    RUN holds ``kind``, ``run_id``, ``new_id``, ``forks``, ``dead_runs`` (runs whose controller is proven dead),
    ``machines`` (that of each worker), ``routers`` (each with its machine), ``strata`` (that of each worker) and
    ``measured`` (how many tasks ended on a worker in how many seconds).
    """
    kind = str(run.get("kind") or "update")
    rollout_id, continued = choose_rollout(fleet, settings, kind, run)
    strategy, other = strategy_of(fleet, settings, kind, rollout_id)
    settings = settings_of(settings, strategy, len(fleet))
    into = Into(kind, rollout_id, switch_of(strategy, settings, kind), kind == "rollback" and strategy != TOGETHER)
    ends = headings(fleet) if kind == "recover" else {}
    workers = {name: _plan_worker({**fleet[name], "ends": ends}, settings, into, name)
               for name in in_order(fleet)}
    todo = order_of(workers, settings)
    idle = [name for name in todo if not workers[name]["serving"]]
    todo = idle + spread(todo[len(idle):], run["machines"], int(settings["window"]))
    size = len(fleet)
    budget = settings["solver_max_fail_percentage"]
    standing = sum(1 for name, own in workers.items()
                   if stands_by(fleet[name].get("census") or {}, own["release"]))
    made = shape(strategy, Going(rollout_id, todo, workers, fleet, settings, tolerated(size, budget),
                                 run.get("strata") or {}, run.get("measured") or {}, int(run["forks"])))
    todo = [*made.joins, *todo]
    workers = {name: _together(own, name in made.joins) if strategy == TOGETHER else own
               for name, own in workers.items()}
    workers = _held(workers)
    stop = stop_s(made.stages[0]["workers"], workers, settings) if made.stages and strategy == TOGETHER else None
    window = made.window or int(settings["window"])
    order = [name for stage in made.stages for name in stage["workers"]]
    surge = made.surge or max(int(settings["surge"]), standing)
    raised = [name for name in order if workers[name]["switch"] == "standby"]
    locked = live_locks(fleet, settings, run["dead_runs"])
    lock = lock_plan(fleet, workers, settings, run)
    return {
        "kind": kind,
        "strategy": strategy,
        "rollout_id": rollout_id,
        "run_id": run["run_id"],
        "continued": continued,
        "way_back": False,
        "target": target_of(settings, kind, workers),
        "asked": asked_for(settings),
        "fleet": size,
        "window": window,
        "max_soaking": int(settings["soaking"]),
        "blue_keep": float(settings["solver_blue_keep"]) if strategy == "blue_green" else 0.0,
        "surge": surge,
        "floor": size - window,
        "budget_percent": budget,
        "tolerated": tolerated(size, budget),
        "order": order,
        "stages": made.stages,
        "bake": made.bake,
        "promote": settings["solver_promote"],
        "on_inconclusive": settings["solver_on_inconclusive"],
        "estimate_s": round(stop + soak_s(settings, kind) if stop else bake_s(made.bake, settings) + sum(
            _stage_s(stage, workers, settings, kind) for stage in made.stages)),
        "stop_s": stop,
        "probes": sum(1 for name in todo if workers[name]["probe"]),
        "workers": workers,
        "lock": lock,
        "refused": [*other, *refusals(workers), *made.refused, *majority_refusals(workers, lock),
                    *roster_refusals(fleet, settings, kind),
                    *moving_refusals(fleet, run["machines"], run["routers"]),
                    *memory_refusals(fleet, run["machines"], raised, surge, strategy), *locked],
        "locked": locked,
        "warnings": [*warnings_of(workers, settings, run), *fragile_warnings(fleet),
                     *parting_warnings(fleet, kind, strategy)],
    }


class Into(NamedTuple):
    """What is planned for all workers alike."""

    kind: str
    rollout_id: str
    switch: str
    flips: bool  # what stands by takes over


def switch_of(strategy: str, settings: Mapping[str, Any], kind: str) -> str:
    """Return how the workers come to the release.

    To recover is to go on where somebody left off. What a rollback leads to may know no standby, and must be had all
    the same; where it stands by already, it takes over.
    """
    if kind != "update" or strategy == TOGETHER:
        return "in_place"
    return "standby" if strategy == "blue_green" else str(settings["solver_switch"])


def order_of(workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any]) -> list[str]:
    """Return whom to update, in order: those that do not serve, then the longest drain first, or by name.

    With the longest first nobody waits at the end for one that drains for minutes.
    """
    def key(name: str) -> tuple[bool, float, Any]:
        worker = workers[name]
        longest = float(worker["p99_s"] or 0.0) if settings["solver_order"] == "drain" else 0.0
        return worker["serving"], -longest, natural(name)

    return sorted((name for name, worker in workers.items() if worker["action"] == "update"), key=key)


def spread(order: Sequence[str], machines: Mapping[str, str], window: int) -> list[str]:
    """Return the order with those that may leave service together on different machines, as far as there are others."""
    rest, out = list(order), list[str]()
    while rest:
        beside = {machines[name] for name in out[-(window - 1):]} if window > 1 else set()
        name = next((name for name in rest if machines[name] not in beside), rest[0])
        rest.remove(name)
        out.append(name)
    return out


def tolerated(fleet: int, budget_percent: float) -> int:
    """Return how many failures the budget bears: strictly more than BUDGET_PERCENT of FLEET stops the rollout."""
    return int(fleet * budget_percent / 100 + 1e-9)


def target_of(settings: Mapping[str, Any], kind: str, workers: Mapping[str, PlannedWorker]) -> str:
    """Return what the rollout leads to, in one word: a version, or several where each worker has its own."""
    if settings["solver_version"] and kind != "recover":
        return str(settings["solver_version"])
    versions = sorted({str(worker["to"]) for worker in workers.values() if worker["to"]})
    return ", ".join(versions) or "nothing"


def asked_for(settings: Mapping[str, Any]) -> str:
    """Return what the operator asked for, by which a rollout is known again."""
    return str(settings["solver_version"] or "previous")


def choose_rollout(
    fleet: Fleet, settings: Mapping[str, Any], kind: str, run: Mapping[str, Any],
) -> tuple[str, bool]:
    """Return the id of the rollout, and whether it continues an earlier one: same kind, same target, not yet over.

    To recover is to end what others began, so it never continues: it takes their drains over one by one.
    """
    if settings["solver_rollout_id"]:
        return str(settings["solver_rollout_id"]), False
    new_id = str(run["new_id"])
    if kind == "recover":
        return new_id, False
    wanted = asked_for(settings)
    known = [rollout_of(facts.get("census") or {}) for facts in fleet.values()]
    known = [own for own in known if continuable(own, float(run["now"]))]
    open_ones = [own for own in known
                 if own.get("kind") == kind and own.get("target") == wanted and own.get("verdict") not in OVER]
    counts = Counter(str(own["id"]) for own in open_ones)
    if len(known) > 2 and any(count > 1 for count in counts.values()):
        # One record alone does not choose for all.
        open_ones = [own for own in open_ones if counts[str(own["id"])] > 1]
    if not open_ones:
        return new_id, False
    newest = max(open_ones, key=lambda own: (str(own.get("started_at") or ""), str(own.get("id"))))
    # What was replaced by something else meanwhile is history, not ours to go on with.
    later = [own for own in known if str(own.get("started_at") or "") > str(newest.get("started_at") or "")
             and own.get("id") != newest.get("id") and own.get("kind") != "recover"]
    return (new_id, False) if later else (str(newest["id"]), True)


def _plan_worker(
    facts: Mapping[str, Any], settings: Mapping[str, Any], into: Into, name: str,
) -> PlannedWorker:
    kind, rollout_id = into.kind, into.rollout_id
    census, staged = facts.get("census") or {}, facts.get("staged") or {}
    worker = census.get("worker") or {}
    instance = worker.get("instance") or {}
    current = (census.get("releases") or {}).get("current") or {}
    staging = settings["solver_version"] and kind != "recover"
    own = rollout_of(census)
    end = str(facts["ends"].get(own.get("id"), "")) if own.get("strategy") == TOGETHER else ""
    release = staged.get("release") or {} if staging else return_target(census, kind, end)
    times = worker.get("solve_times") or {}
    planned: Any = {
        "kind": kind,
        "rollout_id": rollout_id,
        "from": instance.get("version") or current.get("version"),
        "from_release": instance.get("release") or current.get("id"),
        "to": release.get("version"),
        "release": release.get("id"),
        "finding": census.get("finding"),
        "serving": serving(worker),
        "lacks": lacking(worker, settings, into.switch),
        # One that does not serve has nothing to gain from a second process.
        "switch": "standby" if serving(worker) and (into.switch == "standby" or (
            into.flips and stands_by(census, release.get("id")))) else "in_place",
        "on_drain_timeout": on_drain_timeout(worker, settings),
        "p50_s": times.get("p50_s"),
        "p99_s": times.get("p99_s"),
        "totals": worker.get("totals"),
        "journal": (worker.get("journal") or {}).get("id"),
        "record_seq": (census.get("rollout") or {}).get("seq") or 0,
        "forced": kind == "rollback" and name in (settings.get("solver_only") or []) and takes_no_drain(census),
        "steal": False,
        "probe": True,
        "together": bool(end),
        "stays_held": False,
    }
    planned.update(back_to(census, planned))
    if end == "to":
        # It serves beside others that run it: alone it must not go back.
        planned.update(back_to=None, back_version=None)
    planned.update(owner=owner_of(census, planned), on_expire=on_expire(worker, planned),
                   begins=begins(census, planned))
    planned.update(_decide(census, staged, planned, settings, name)._asdict())
    if kind == "recover" and planned["action"] == "update" and planned["serving"] and left_beside(census):
        planned["switch"] = "tidy"
    made: PlannedWorker = planned
    return made


def back_to(census: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the worker goes back to: what the record of its rollout says, else what it runs now.

    Also what another rollout's record says, where that one did not bring the worker to serve: nobody knows whether what
    it left can.
    """
    own = rollout_of(census)
    begun, to = own.get("from") or {}, (own.get("to") or {}).get("release")
    ours = own.get("id") == planned["rollout_id"] and to == planned["release"]
    unseen = not planned["serving"] and own.get("outcome") not in ("updated", "already")
    if begun.get("release") and (ours or unseen or planned["kind"] == "recover"):
        return {"back_to": begun["release"], "back_version": begun.get("version")}
    return {"back_to": planned["from_release"], "back_version": planned["from"]}


def _together(worker: PlannedWorker, joins: bool) -> PlannedWorker:
    """Return a worker as it is where all go together: whatever becomes of the run, no lease lets it serve alone."""
    own: PlannedWorker = {**worker, "together": True, "on_expire": worker["on_expire"] and "hold"}
    if not joins:
        return own
    return {**own, "action": "update", "reason": "serves it already, and is taken out with the others"}


def _held(workers: Mapping[str, PlannedWorker]) -> dict[str, PlannedWorker]:
    """Return the workers; no lease and no failed step lets one serve what others neither serve nor go back to."""
    beside = {own["from_release"] for own in workers.values() if own["serving"]}
    beside |= {own["back_to"] or own["release"] for own in workers.values()}

    def parts(own: PlannedWorker) -> bool:
        return own["together"] and not own["serving"] and beside != {own["from_release"]}

    return {name: {**own, "stays_held": True, "on_expire": "hold"} if parts(own) else own
            for name, own in workers.items()}


def owner_of(census: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """Return in whose name the worker is drained: a recovery goes on in that of the rollout which it ends.

    So the worker still knows the version whose drain it is, and the record whose drain was left, also if the recovery
    dies in its turn.
    """
    owner = str(((census.get("worker") or {}).get("drain") or {}).get("owner") or "")
    return owner if planned["kind"] == "recover" and owner in known_rollouts(census) else str(planned["rollout_id"])


def on_expire(worker: Mapping[str, Any], planned: PlannedWorker) -> str | None:
    """Return what a lost lease leads to where an interrupted run switched the worker; nothing where none did."""
    if not switched_before(planned):
        return None
    return "verify" if "verify" in ((worker.get("api") or {}).get("features") or []) else "hold"


def begins(census: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    """Whether the record of a worker at the target is this rollout's own; any other keeps its own way back."""
    return bool(rollout_of(census).get("id") == planned["rollout_id"])


def _decide(
    census: Mapping[str, Any], staged: Mapping[str, Any], planned: Mapping[str, Any], settings: Mapping[str, Any],
    name: str,
) -> Decision:
    only = settings.get("solver_only") or []
    if only and name not in only:
        return Decision("excluded", "not named by solver_only", left_out=True)
    if name in settings["solver_exclude"]:
        return Decision("excluded", "named by solver_exclude", left_out=True)
    if not census:
        return Decision("unreachable", "it was lost before the rollout began")
    if census.get("unreachable") or census.get("failed") or staged.get("unreachable") or staged.get("wrong"):
        return Decision("unreachable", one_line(census.get("msg") or staged.get("msg")))
    return recover(census, planned) if planned["kind"] == "recover" else converge(census, staged, planned, settings)


def refusals(workers: Mapping[str, PlannedWorker]) -> list[str]:
    """Say each reason once, with the workers it is true of: a bad release is bad on all of them."""
    by_reason: dict[str, list[str]] = {}
    for name, worker in workers.items():
        if worker["action"] == "refuse":
            by_reason.setdefault(worker["reason"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _stage_s(
    stage: Stage, workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any], kind: str,
) -> float:
    """How long a stage takes: each worker begins at the first free place, by its own solve times."""
    soak = soak_s(settings, kind)
    places = [0.0] * max(stage["window"], int(settings["surge"]) if settings["solver_switch"] == "standby" else 0)
    watched = [0.0] * int(settings["soaking"])
    last = 0.0
    for name in stage["workers"]:
        serves = heapq.heappop(places) + _worker_s(workers[name], settings)
        last = max(last, serves + soak)
        free = heapq.heapreplace(watched, serves + soak) if watched else serves + soak
        heapq.heappush(places, max(serves, free))
    return last


def soak_s(settings: Mapping[str, Any], kind: str) -> float:
    return float(settings["solver_min_healthy_time"]) if kind == "update" else 0.0


def stop_s(
    names: Sequence[str], workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any],
) -> float:
    """How long nobody serves: the pilot restarts and is verified, and then the others are."""
    each = [_worker_s(workers[name], settings) for name in names]
    return each[0] + (max(each[1:]) - DRAIN_S if len(each) > 1 else 0.0)


def bake_s(bake: BakePlan | None, settings: Mapping[str, Any]) -> float:
    """How long the canaries are compared with the others."""
    if not bake or bake["judged"] or settings["solver_promote"] == "now":
        return 0.0
    return min(max(bake["bake_s"], bake["needs_s"] or 0.0), bake["max_s"])


def _worker_s(worker: PlannedWorker, settings: Mapping[str, Any]) -> float:
    if worker["switch"] == "standby":
        return RESTART_S + TAKE_OVER_S + float(worker["p50_s"] or PROBE_S)
    limit = float(settings["solver_drain_timeout"])
    drain = min(float(worker["p99_s"]), limit) if worker["p99_s"] else limit / 2
    if settings["solver_drain_mode"] == "handover" or not worker["serving"]:
        drain = DRAIN_S
    probe = float(worker["p50_s"] or PROBE_S) if worker["probe"] else 0.0
    return float(settings["solver_drain_grace"]) + drain + RESTART_S + probe
