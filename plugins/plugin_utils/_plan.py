# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The plan of a rollout, from the census of the fleet and the settings. Pure functions of plain data."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._drain import P99_MARGIN
from ansible_collections.solver.fleet.plugins.module_utils._record import WAIT_OR_STEAL, in_words
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import (
    Decision,
    converge,
    known_rollouts,
    lacking,
    mixed_warning,
    on_drain_timeout,
    recover,
    return_target,
    rollout_of,
    serving,
    stuck,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._locks import (
    Dead,
    continuable,
    dead_on,
    members,
    proven_dead,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order, natural
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import LOOPBACK
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_read import stage_sizes
from ansible_collections.solver.fleet.plugins.plugin_utils._step import switched_before
from ansible_collections.solver.fleet.plugins.plugin_utils._types import LockPlan, Plan, PlannedWorker, Stage

Fleet = Mapping[str, Mapping[str, Any]]

# A rollout with one of these verdicts is over; everything else goes on under its id when its target is asked for again.
OVER = frozenset({"rolled_back", "rollback_failed", "superseded"})
# Without the worker's own measurements these stand in the estimate.
RESTART_S = 5.0
PROBE_S = 10.0
STOPPING = ("to stop it: pause.yml or abort.yml, in another terminal. After Ctrl-C run the same command again to "
            "go on, or recover.yml to put back into service whom it left drained")
NOT_FOLLOWED = ("the routers do not follow a serving worker to another address (solver_data_host, solver_data_port); "
                "remove it and provision it again, or roll with -e solver_router_hosts=none and run provision.yml "
                "afterwards, which leaves it without tasks from the routers in between")


def make_plan(fleet: Fleet, settings: Mapping[str, Any], run: Mapping[str, Any]) -> Plan:
    """Return what the rollout will do. FLEET maps each worker to its ``census`` and ``staged`` results.

    RUN holds ``kind``, ``run_id``, ``new_id``, ``forks``, ``dead_runs`` (runs whose controller is proven dead),
    ``machines`` (that of each worker) and ``routers`` (each with its machine).
    """
    kind = str(run.get("kind") or "update")
    rollout_id, continued = choose_rollout(fleet, settings, kind, run)
    workers = {name: _plan_worker(fleet[name], settings, kind, rollout_id, name) for name in in_order(fleet)}
    todo = order_of(workers, settings)
    idle = [name for name in todo if not workers[name]["serving"]]
    todo = idle + spread(todo[len(idle):], run["machines"], int(settings["window"]))
    window, size = int(settings["window"]), len(fleet)
    budget = settings["solver_max_fail_percentage"]
    stages = stages_of(todo, settings, size, tolerated(size, budget))
    locked = live_locks(fleet, settings, run["dead_runs"])
    lock = lock_plan(fleet, workers, settings, run)
    return {
        "kind": kind,
        "rollout_id": rollout_id,
        "run_id": run["run_id"],
        "continued": continued,
        "going_back": False,
        "target": target_of(settings, kind, workers),
        "asked": asked_for(settings),
        "fleet": size,
        "window": window,
        "max_soaking": int(settings["soaking"]),
        "floor": size - window,
        "budget_percent": budget,
        "tolerated": tolerated(size, budget),
        "order": todo,
        "stages": stages,
        "estimate_s": round(sum(_stage_s(stage, workers, settings, kind) for stage in stages)),
        "probes": sum(1 for name in todo if workers[name]["probe"]),
        "workers": workers,
        "lock": lock,
        "refused": (refusals(workers) + majority_refusals(workers, lock) + roster_refusals(fleet, settings, kind)
                    + moving_refusals(fleet, run["machines"], run["routers"]) + locked),
        "locked": locked,
        "warnings": _warnings(workers, settings, run) + fragile_warnings(fleet),
    }


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


def stages_of(
    todo: Sequence[str], settings: Mapping[str, Any], fleet: int, bears: int,
) -> list[Stage]:
    """Return the stages: the next one begins when everybody of the last has ended its turn."""
    window = int(settings["window"])
    sizes = stage_sizes(settings["solver_stages"], fleet, len(todo))
    if settings["solver_window"] == "waves":
        sizes = [min(window, size - start) for size in sizes for start in range(0, size, window)]
    stages, start = list[Stage](), 0
    for size in sizes:
        stages.append({"workers": list(todo[start:start + size]), "window": window, "tolerated": bears,
                       "after": "nothing"})
        start += size
    return stages


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
    facts: Mapping[str, Any], settings: Mapping[str, Any], kind: str, rollout_id: str, name: str,
) -> PlannedWorker:
    census, staged = facts.get("census") or {}, facts.get("staged") or {}
    worker = census.get("worker") or {}
    instance = worker.get("instance") or {}
    current = (census.get("releases") or {}).get("current") or {}
    staging = settings["solver_version"] and kind != "recover"
    release = staged.get("release") or {} if staging else return_target(census, kind)
    times = worker.get("solve_times") or {}
    plan: Any = {
        "kind": kind,
        "rollout_id": rollout_id,
        "from": instance.get("version") or current.get("version"),
        "from_release": instance.get("release") or current.get("id"),
        "to": release.get("version"),
        "release": release.get("id"),
        "finding": census.get("finding"),
        "state": worker.get("state"),
        "serving": serving(worker),
        "lacks": lacking(worker, settings),
        "on_drain_timeout": on_drain_timeout(worker, settings),
        "p50_s": times.get("p50_s"),
        "p99_s": times.get("p99_s"),
        "totals": worker.get("totals"),
        "journal": (worker.get("journal") or {}).get("id"),
        "record_seq": (census.get("rollout") or {}).get("seq") or 0,
        "forced": kind == "rollback" and name in (settings.get("solver_only") or []) and stuck(census),
        "steal": False,
        "probe": True,
    }
    plan.update(back_to(census, plan))
    plan.update(owner=owner_of(census, plan), on_expire=on_expire(worker, plan), begins=begins(census, plan))
    plan.update(_decide(census, staged, plan, settings, name)._asdict())
    planned: PlannedWorker = plan
    return planned


def back_to(census: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the worker goes back to: what the record of its rollout says, else what it runs now.

    Also what another rollout's record says, where that one did not bring the worker to serve: nobody knows whether what
    it left can.
    """
    own = rollout_of(census)
    begun, to = own.get("from") or {}, (own.get("to") or {}).get("release")
    ours = own.get("id") == plan["rollout_id"] and to == plan["release"]
    unseen = not plan["serving"] and own.get("outcome") not in ("updated", "already")
    if begun.get("release") and (ours or unseen or plan["kind"] == "recover"):
        return {"back_to": begun["release"], "back_version": begun.get("version")}
    return {"back_to": plan["from_release"], "back_version": plan["from"]}


def owner_of(census: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Return in whose name the worker is drained: a recovery goes on in that of the rollout which it ends.

    So the worker still knows the version whose drain it is, and the record whose drain was left, also if the recovery
    dies in its turn.
    """
    owner = str(((census.get("worker") or {}).get("drain") or {}).get("owner") or "")
    return owner if plan["kind"] == "recover" and owner in known_rollouts(census) else str(plan["rollout_id"])


def on_expire(worker: Mapping[str, Any], plan: PlannedWorker) -> str | None:
    """Return what a lost lease leads to where an interrupted run switched the worker; nothing where none did."""
    if not switched_before(plan):
        return None
    return "verify" if "verify" in ((worker.get("api") or {}).get("features") or []) else "hold"


def begins(census: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    """Whether the record of a worker at the target is this rollout's own; any other keeps its own way back."""
    return bool(rollout_of(census).get("id") == plan["rollout_id"])


def _decide(
    census: Mapping[str, Any], staged: Mapping[str, Any], plan: Mapping[str, Any], settings: Mapping[str, Any],
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
    return recover(census, plan) if plan["kind"] == "recover" else converge(census, staged, plan, settings)


def by_name(fleet: Fleet) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the workers with what is known of them, in the order in which people read names."""
    return [(name, fleet[name]) for name in in_order(fleet)]


def refusals(workers: Mapping[str, PlannedWorker]) -> list[str]:
    """Say each reason once, with the workers it is true of: a bad release is bad on all of them."""
    by_reason: dict[str, list[str]] = {}
    for name, worker in workers.items():
        if worker["action"] == "refuse":
            by_reason.setdefault(worker["reason"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def roster_of(fleet: Fleet) -> list[str]:
    """Return every worker that the workers' records know of."""
    return in_order(members({name: ((facts.get("census") or {}).get("rollout") or {}).get("roster") or []
                             for name, facts in fleet.items() if (facts.get("census") or {}).get("worker")}))


def roster_refusals(fleet: Fleet, settings: Mapping[str, Any], kind: str) -> list[str]:
    """Say which known workers the inventory lacks; window and budget must be those of the whole fleet."""
    if settings["solver_allow_partial"] or kind == "recover":
        return []
    expected = settings.get("solver_fleet_size") or 0
    out = []
    if expected and expected != len(fleet):
        out.append(f"the run has {len(fleet)} workers, but solver_fleet_size is {expected}; "
                   "give it the whole inventory, or correct solver_fleet_size")
    missing = in_order(set(roster_of(fleet)) - set(fleet) - set(settings.get("solver_forget") or []))
    if missing:
        out.append(f"the inventory lacks {', '.join(missing)}, which earlier rollouts knew; give it the whole fleet, "
                   "name workers that are gone for good in solver_forget, or set solver_allow_partial: true")
    return out


def address_of(release: Mapping[str, Any] | None) -> str:
    """Return where a release answers for its data API; releases of early versions do not say."""
    return str((release or {}).get("data_address") or "")


def leaves(
    census: Mapping[str, Any], then: str, machine: str, routers: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the address at which a router may send to a worker, if the worker would leave it for THEN.

    One that does not serve may have any; a router on another machine never got to a loopback.
    """
    if census.get("finding") != "answering" or census["worker"]["state"] == "failed":
        return ""
    now = address_of((census.get("releases") or {}).get("current"))
    reached = now.rpartition(":")[0] not in LOOPBACK or machine in {router["machine"] for router in routers.values()}
    return now if then and now != then and routers and reached else ""


def moving_refusals(
    fleet: Fleet, machines: Mapping[str, str], routers: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Say which workers would leave the address at which a router knows them."""
    moving = []
    for name, facts in by_name(fleet):
        then = address_of((facts.get("staged") or {}).get("release"))
        now = leaves(facts.get("census") or {}, then, machines[name], routers)
        if now:
            moving.append(f"{name} from {now} to {then}")
    return [f"{', '.join(moving)}: {NOT_FOLLOWED}"] if moving else []


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


def dead_of(fleet: Fleet, own: Mapping[str, Any], dead: Dead) -> list[str]:
    """Return the runs that hold workers of the fleet and are proven dead, by all that this machine can know."""
    return proven_dead(holders_of(fleet), own, dead)


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
    }


def lock_refusals(plan: Plan, locks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say why the rollout does not hold the fleet: LOCKS maps each worker to what rollout_lock said, or nothing."""
    refused: dict[str, list[str]] = {}
    held = 0
    for name in plan["lock"]["workers"]:
        answer = locks.get(name) or {}
        if answer.get("ours") and not answer.get("failure"):
            held += 1
        elif answer and not answer.get("unreachable") and not answer.get("wrong"):
            refused.setdefault(one_line(answer.get("msg")) or "its lock could not be taken", []).append(name)
    out = [f"{', '.join(names)}: {reason}" for reason, names in refused.items()]
    return out or _too_few(held, plan["lock"])


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


def _stage_s(
    stage: Stage, workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any], kind: str,
) -> float:
    """How long a stage takes: each worker begins at the first free place, by its own solve times."""
    soak = float(settings["solver_min_healthy_time"]) if kind == "update" else 0.0
    places = [0.0] * stage["window"]
    watched = [0.0] * int(settings["soaking"])
    last = 0.0
    for name in stage["workers"]:
        serves = heapq.heappop(places) + _worker_s(workers[name], settings)
        last = max(last, serves + soak)
        free = heapq.heapreplace(watched, serves + soak) if watched else serves + soak
        heapq.heappush(places, max(serves, free))
    return last


def _worker_s(worker: PlannedWorker, settings: Mapping[str, Any]) -> float:
    limit = float(settings["solver_drain_timeout"])
    drain = min(float(worker["p99_s"]), limit) if worker["p99_s"] else limit / 2
    if settings["solver_drain_mode"] == "handover" or not worker["serving"]:
        drain = 1.0
    probe = float(worker["p50_s"] or PROBE_S) if worker["probe"] else 0.0
    return float(settings["solver_drain_grace"]) + drain + RESTART_S + probe


def _warnings(
    workers: Mapping[str, PlannedWorker], settings: Mapping[str, Any], run: Mapping[str, Any],
) -> list[str]:
    out = _forks_warning(sum(1 for worker in workers.values() if worker["action"] == "update"), settings,
                         int(run["forks"]))
    out += mixed_warning(worker["from"] for worker in workers.values())
    silent = [name for name, worker in workers.items() if worker["action"] == "unreachable"]
    if silent:
        out.append(f"{', '.join(silent)} cannot be reached: counted as failed, and not known to be out of service")
    return out + _deadline_warning(workers, settings)


def fragile_warnings(fleet: Fleet) -> list[str]:
    """Name the workers whose release could not be started again, each cause once: a failed update needs it, too."""
    problems = {name: one_line((fleet[name].get("census") or {}).get("release_problem")) for name in in_order(fleet)}
    return [f"{', '.join(name for name, own in problems.items() if own == problem)} would not survive a restart, and "
            f"could not go back to what runs: {problem}; provision.yml with the version that runs mends it"
            for problem in dict.fromkeys(problems.values()) if problem]


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


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as lines for people."""
    what = {"update": "update", "rollback": "roll back", "recover": "recover"}[plan["kind"]]
    lines = [
        f"{plan['fleet']} workers, {len(plan['order'])} to {what} to {plan['target']}, "
        f"{plan['window']} at a time, at least {plan['floor']} keep serving; "
        f"up to {plan['tolerated']} may fail ({plan['budget_percent']:g} %)"]
    if plan["continued"]:
        lines.append(f"continues rollout {plan['rollout_id']}")
    for number, stage in enumerate(plan["stages"], 1):
        place = f"stage {number}: " if len(plan["stages"]) > 1 else ""
        lines.append(place + ", ".join(_move(name, plan["workers"][name]) for name in stage["workers"]))
    if plan["order"]:
        lines.append(f"about {minutes(plan['estimate_s'])}, by the workers' own solve times; {plan['probes']} probe "
                     f"solve{'s' if plan['probes'] != 1 else ''} to pay for, more if one fails")
    lines += [f"{name}: {worker['action']} ({worker['reason']})" for name, worker in plan["workers"].items()
              if worker["action"] != "update"]
    lines += [f"warning: {text}" for text in plan["warnings"]]
    return lines + ([STOPPING] if plan["order"] else [])


def _move(name: str, worker: PlannedWorker) -> str:
    why = f" ({worker['reason']})" if worker["reason"] else ""
    return f"{name} {worker['from'] or '?'} -> {worker['to']}{why}"


def minutes(seconds: float) -> str:
    """Return a duration in the words of a plan."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
