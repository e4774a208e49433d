# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The plan of a rollout, from the census of the fleet and the settings. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._converge import (
    Decision,
    converge,
    known_rollouts,
    lacking,
    on_drain_timeout,
    recover,
    return_target,
    rollout_of,
    serving,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import LOOPBACK
from ansible_collections.solver.fleet.plugins.plugin_utils._step import one_line, switched_before

Fleet = Mapping[str, Mapping[str, Any]]

# A rollout with one of these verdicts is over; everything else goes on under its id when its target is asked for again.
OVER = frozenset({"rolled_back", "rollback_failed", "superseded"})
# Without the worker's own measurements these stand in the estimate.
RESTART_S = 5.0
PROBE_S = 10.0
NOT_FOLLOWED = ("the routers do not follow a serving worker to another address (solver_data_host, solver_data_port); "
                "remove it and provision it again, or roll with -e solver_router_hosts=none and run provision.yml "
                "afterwards, which leaves it without tasks from the routers in between")


def make_plan(fleet: Fleet, settings: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rollout will do. FLEET maps each worker to its ``census`` and ``staged`` results.

    RUN holds ``kind``, ``run_id``, ``new_id``, ``forks``, ``dead_runs`` (runs whose controller is proven dead),
    ``machines`` (that of each worker) and ``routers`` (each with its machine).
    """
    kind = str(run.get("kind") or "update")
    rollout_id, continued = choose_rollout(fleet, settings, kind, str(run["new_id"]))
    workers = {name: _plan_worker(facts, settings, kind, rollout_id, name) for name, facts in sorted(fleet.items())}
    todo = sorted(
        (name for name, worker in workers.items() if worker["action"] == "update"),
        key=lambda name: (workers[name]["serving"], name))
    window = min(int(settings["window"]), max(1, int(run["forks"])))
    # Workers that are out and stay out take their part of the window.
    width = max(1, window - standing(workers))
    waves = [todo[start:start + width] for start in range(0, len(todo), width)]
    size = len(fleet)
    budget = settings["solver_max_fail_percentage"]
    locked = live_locks(fleet, settings, run)
    return {
        "kind": kind,
        "rollout_id": rollout_id,
        "run_id": run["run_id"],
        "continued": continued,
        "target": target_of(settings, kind, workers),
        "asked": asked_for(settings),
        "fleet": size,
        "window": window,
        "floor": size - window,
        "budget_percent": budget,
        "tolerated": tolerated(size, budget),
        "order": todo,
        "waves": waves,
        "estimate_s": round(sum(_wave_s(wave, workers, settings, kind) for wave in waves)),
        "probes": sum(1 for name in todo if workers[name]["probe"]),
        "workers": workers,
        "lock": lock_plan(fleet, workers, settings, run),
        "refused": (refusals(workers) + roster_refusals(fleet, settings, kind)
                    + moving_refusals(fleet, run["machines"], run["routers"]) + locked),
        "locked": locked,
        "warnings": _warnings(workers, settings, window),
    }


def standing(workers: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many workers are known to be out of service and are not updated."""
    return sum(1 for worker in workers.values()
               if worker["action"] not in ("update", "unreachable") and not worker["serving"])


def tolerated(fleet: int, budget_percent: float) -> int:
    """Return how many failures the budget bears: strictly more than BUDGET_PERCENT of FLEET stops the rollout."""
    return int(fleet * budget_percent / 100 + 1e-9)


def target_of(settings: Mapping[str, Any], kind: str, workers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the rollout leads to, in one word: a version, or several where each worker has its own."""
    if settings["solver_version"] and kind != "recover":
        return str(settings["solver_version"])
    versions = sorted({str(worker["to"]) for worker in workers.values() if worker["to"]})
    return ", ".join(versions) or "nothing"


def asked_for(settings: Mapping[str, Any]) -> str:
    """Return what the operator asked for, by which a rollout is known again."""
    return str(settings["solver_version"] or "previous")


def choose_rollout(fleet: Fleet, settings: Mapping[str, Any], kind: str, new_id: str) -> tuple[str, bool]:
    """Return the id of the rollout, and whether it continues an earlier one: same kind, same target, not yet over.

    To recover is to end what others began, so it never continues: it takes their drains over one by one.
    """
    if settings["solver_rollout_id"]:
        return str(settings["solver_rollout_id"]), False
    if kind == "recover":
        return new_id, False
    wanted = asked_for(settings)
    known = [rollout_of(facts.get("census") or {}) for facts in fleet.values()]
    open_ones = [own for own in known
                 if own.get("kind") == kind and own.get("target") == wanted and own.get("verdict") not in OVER]
    if not open_ones:
        return new_id, False
    newest = max(open_ones, key=lambda own: (str(own.get("started_at") or ""), str(own.get("id"))))
    # What was replaced by something else meanwhile is history, not ours to go on with.
    later = [own for own in known if str(own.get("started_at") or "") > str(newest.get("started_at") or "")
             and own.get("id") != newest.get("id") and own.get("kind") != "recover"]
    return (new_id, False) if later else (str(newest["id"]), True)


def _plan_worker(
    facts: Mapping[str, Any], settings: Mapping[str, Any], kind: str, rollout_id: str, name: str,
) -> dict[str, Any]:
    census, staged = facts.get("census") or {}, facts.get("staged") or {}
    worker = census.get("worker") or {}
    instance = worker.get("instance") or {}
    current = (census.get("releases") or {}).get("current") or {}
    staging = settings["solver_version"] and kind != "recover"
    release = staged.get("release") or {} if staging else return_target(census, kind)
    times = worker.get("solve_times") or {}
    plan: dict[str, Any] = {
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
        "steal": False,
        "probe": True,
    }
    plan.update(back_to(census, plan))
    plan.update(owner=owner_of(census, plan), on_expire=on_expire(worker, plan), begins=begins(census, plan))
    decision = _decide(census, staged, plan, settings, name)
    return {**plan, **decision._asdict()}


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


def on_expire(worker: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
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
        return Decision("excluded", "not named by solver_only")
    if name in settings["solver_exclude"]:
        return Decision("excluded", "named by solver_exclude")
    if not census:
        return Decision("unreachable", "it was lost before the rollout began")
    if census.get("unreachable") or census.get("failed") or staged.get("unreachable"):
        return Decision("unreachable", one_line(census.get("msg") or staged.get("msg")))
    return recover(census, plan) if plan["kind"] == "recover" else converge(census, staged, plan, settings)


def refusals(workers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say each reason once, with the workers it is true of: a bad release is bad on all of them."""
    by_reason: dict[str, list[str]] = {}
    for name, worker in workers.items():
        if worker["action"] == "refuse":
            by_reason.setdefault(worker["reason"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def roster_of(fleet: Fleet) -> list[str]:
    """Return every worker that an earlier rollout knew of."""
    known: set[str] = set()
    for facts in fleet.values():
        known |= set(((facts.get("census") or {}).get("rollout") or {}).get("roster") or [])
    return sorted(known)


def roster_refusals(fleet: Fleet, settings: Mapping[str, Any], kind: str) -> list[str]:
    """Say which known workers the inventory lacks; window and budget must be those of the whole fleet."""
    if settings["solver_allow_partial"] or kind == "recover":
        return []
    expected = settings.get("solver_fleet_size") or 0
    out = []
    if expected and expected != len(fleet):
        out.append(f"the run has {len(fleet)} workers, but solver_fleet_size is {expected}; "
                   "give it the whole inventory, or correct solver_fleet_size")
    missing = sorted(set(roster_of(fleet)) - set(fleet) - set(settings.get("solver_forget") or []))
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
    for name, facts in sorted(fleet.items()):
        then = address_of((facts.get("staged") or {}).get("release"))
        now = leaves(facts.get("census") or {}, then, machines[name], routers)
        if now:
            moving.append(f"{name} from {now} to {then}")
    return [f"{', '.join(moving)}: {NOT_FOLLOWED}"] if moving else []


def live_locks(fleet: Fleet, settings: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Say which rollout holds the fleet, unless it is proven dead or may be taken over."""
    if settings["solver_lock_steal"]:
        return []
    by_run: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for name, facts in sorted(fleet.items()):
        holder = holder_of(facts.get("census") or {})
        if holder and holder["run_id"] not in run["dead_runs"]:
            by_run.setdefault(str(holder["run_id"]), (holder, []))[1].append(name)
    return [holder_text(holder, names) for holder, names in by_run.values()]


def holder_of(census: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the live lock on a worker; one whose time has run out is none."""
    if census.get("lock_state") != "held":
        return None
    return (census.get("rollout") or {}).get("lock")


def holder_text(holder: Mapping[str, Any], names: Iterable[str]) -> str:
    """Say who holds the lock, since when and why, and what to do about it."""
    controller = holder.get("controller") or {}
    who = f"{holder.get('user') or '?'} on {controller.get('host')}"
    if holder.get("job"):
        who = f"AWX job {holder['job']}"
    reason = f" ({one_line(holder['reason'])})" if holder.get("reason") else ""
    return (f"rollout {holder.get('rollout_id')} of {who}{reason} holds {', '.join(names)} since "
            f"{holder.get('acquired_at')}, last seen {holder.get('renewed_at')}; wait for it (solver_lock_wait), or, "
            "when it is known to be dead, set solver_lock_steal: true with a solver_reason")


def lock_plan(
    fleet: Fleet, workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], run: Mapping[str, Any],
) -> dict[str, Any]:
    """Return whom to lock, the first by name before all others, so that two rollouts meet there."""
    names = [name for name, worker in workers.items() if worker["action"] != "unreachable"]
    roster = set(roster_of(fleet)) | set(fleet)
    base = set(fleet) if settings["solver_allow_partial"] else roster - set(settings.get("solver_forget") or [])
    return {
        "workers": names,
        "leader": names[0] if names else None,
        "needed": len(base) // 2 + 1,
        "dead_runs": list(run["dead_runs"]),
        "roster": sorted((set(fleet) | roster) - set(settings.get("solver_forget") or [])),
    }


def lock_refusals(plan: Mapping[str, Any], locks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say why the rollout does not hold the fleet: LOCKS maps each worker to what rollout_lock said, or nothing."""
    refused: dict[str, list[str]] = {}
    held = 0
    for name in plan["lock"]["workers"]:
        answer = locks.get(name) or {}
        if answer.get("ours") and not answer.get("failure"):
            held += 1
        elif answer and not answer.get("unreachable"):
            refused.setdefault(one_line(answer.get("msg")) or "its lock could not be taken", []).append(name)
    out = [f"{', '.join(names)}: {reason}" for reason, names in refused.items()]
    if not out and held < plan["lock"]["needed"]:
        out.append(f"only {held} of the fleet's workers could be locked, {plan['lock']['needed']} are needed so that "
                   "no other rollout can begin; bring the workers back, or set solver_allow_partial: true")
    return out


def quicker(locks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether another run came first: one that is over by and by, so that waiting and planning again helps."""
    return any(str((answer.get("failure") or {}).get("code")) in ("held", "changed") for answer in locks.values())


def _wave_s(
    wave: Iterable[str], workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], kind: str,
) -> float:
    """How long a wave takes, by the slowest of its workers' own solve times."""
    soak = settings["solver_min_healthy_time"] if kind == "update" else 0.0
    return max((_worker_s(workers[name], settings) for name in wave), default=0.0) + float(soak)


def _worker_s(worker: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    limit = float(settings["solver_drain_timeout"])
    drain = min(float(worker["p99_s"]), limit) if worker["p99_s"] else limit / 2
    if settings["solver_drain_mode"] == "handover" or not worker["serving"]:
        drain = 1.0
    probe = float(worker["p50_s"] or PROBE_S) if worker["probe"] else 0.0
    return float(settings["solver_drain_grace"]) + drain + RESTART_S + probe


def _warnings(
    workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], window: int,
) -> list[str]:
    out = []
    if window < int(settings["window"]):
        out.append(f"forks is {window}, so {window} workers at a time instead of {settings['window']}; "
                   f"use --forks {settings['window']} for the whole window")
    versions = sorted({str(worker["from"]) for worker in workers.values() if worker["from"]})
    if len(versions) > 1:
        out.append(f"the fleet runs mixed versions: {', '.join(versions)}")
    silent = sorted(name for name, worker in workers.items() if worker["action"] == "unreachable")
    if silent:
        out.append(f"{', '.join(silent)} cannot be reached: counted as failed, and not known to be out of service")
    return out + _deadline_warning(workers, settings)


def _deadline_warning(workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """A drain that is shorter than the longest solve plus a buffer ends in a hand-over or a failure."""
    slow = [float(worker["p99_s"]) for worker in workers.values() if worker["p99_s"]]
    needed = max(slow, default=0.0) * 1.3
    if settings["solver_drain_mode"] == "handover" or needed <= settings["solver_drain_timeout"]:
        return []
    return [f"99 % of the solves take up to {max(slow):.0f} s; solver_drain_timeout "
            f"{settings['solver_drain_timeout']:g} leaves no margin, {needed:.0f} would"]


WAVE_GROUP = "solver_wave_"
BACK_GROUP = "solver_back_"


def wave_groups(groups: Iterable[str], prefix: str = WAVE_GROUP) -> list[str]:
    """Return the names of the groups that hold the waves, in order."""
    return sorted(name for name in groups if str(name).startswith(prefix))


def wave_pairs(waves: Iterable[Iterable[str]], prefix: str = WAVE_GROUP) -> list[dict[str, str]]:
    """Return which worker belongs to which wave's group."""
    return [{"worker": name, "group": f"{prefix}{number:04d}"}
            for number, wave in enumerate(waves, 1) for name in wave]


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return the plan as lines for people."""
    what = {"update": "update", "rollback": "roll back", "recover": "recover"}[plan["kind"]]
    lines = [
        f"{plan['fleet']} workers, {len(plan['order'])} to {what} to {plan['target']}, "
        f"{plan['window']} at a time, at least {plan['floor']} keep serving; "
        f"up to {plan['tolerated']} may fail ({plan['budget_percent']:g} %)"]
    if plan["continued"]:
        lines.append(f"continues rollout {plan['rollout_id']}")
    for number, wave in enumerate(plan["waves"], 1):
        lines.append(f"wave {number}: {', '.join(_move(name, plan['workers'][name]) for name in wave)}")
    if plan["order"]:
        lines.append(f"about {minutes(plan['estimate_s'])}, by the workers' own solve times; {plan['probes']} probe "
                     f"solve{'s' if plan['probes'] != 1 else ''} to pay for, more if one fails")
    lines += [f"{name}: {worker['action']} ({worker['reason']})" for name, worker in plan["workers"].items()
              if worker["action"] != "update"]
    return lines + [f"warning: {text}" for text in plan["warnings"]]


def _move(name: str, worker: Mapping[str, Any]) -> str:
    why = f" ({worker['reason']})" if worker["reason"] else ""
    return f"{name} {worker['from'] or '?'} -> {worker['to']}{why}"


def minutes(seconds: float) -> str:
    """Return a duration in the words of a plan."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
