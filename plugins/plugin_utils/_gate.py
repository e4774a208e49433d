# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Whether a further worker may begin, and who is rolled back when not. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import accepts, serving
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._step import switched_before
from ansible_collections.solver.fleet.plugins.plugin_utils._types import (
    Closed,
    HookFailure,
    Outcome,
    Plan,
    PlannedWorker,
    Router,
    Seen,
    Server,
    Stage,
)

Outcomes = Mapping[str, Outcome]
Live = Mapping[str, Seen]

# Of what a worker may end as: at the target, and what counts against the failure budget.
GOOD = frozenset({"updated", "already"})
SPENDS = frozenset({"failed", "reverted", "quarantined", "unreachable", "unknown"})
# What a canary's judge, or the operator's solver_promote, closes the gate with.
WORSE, UNJUDGED, AWAITS = "worse", "unjudged", "awaits_promotion"
# The strategy whose workers go forward and back as one.
TOGETHER = "recreate"
# These come back by themselves, when their lease ends or when they can be reached again.
MAY_RETURN = frozenset({"unknown", "unreachable"})


class Decision(NamedTuple):
    """What the gate says: open, or why not; C(wait) when looking again may help."""

    open: bool
    cause: str = ""
    reason: str = ""
    wait: bool = False


class Asking(NamedTuple):
    """Who wants to begin, and who is at it."""

    name: str
    flight: Collection[str] = ()


class Stall(NamedTuple):
    """How long no worker has become healthy, and how long that may last."""

    seconds: float
    deadline_s: float


def gate(plan: Plan, outcomes: Outcomes, live: Live, asking: Asking, stall: Stall) -> Decision:
    """Decide whether the ASKING worker may begin.

    OUTCOMES holds what became of each worker so far, LIVE what each said last (``census``, ``record`` and ``failure``
    of rollout_lock).
    """
    return shut(plan, outcomes, live, asking) or _in_time(_floor(plan, outcomes, live, asking, stall), stall)


def shut(plan: Plan, outcomes: Outcomes, live: Live, asking: Asking) -> Decision | None:
    """Return why nobody at all may begin any more, or nothing."""
    checks = (_lock(plan, live, asking), asked_to_stop(live), _budget(plan, outcomes), _stage_budget(plan, outcomes),
              _inconclusive(outcomes), _quarantined(plan, outcomes))
    return next((decision for decision in checks if decision is not None), None)


def gate_beside(plan: Plan, outcomes: Outcomes, live: Live, asking: Asking, stall: Stall) -> Decision:
    """Decide for a worker that serves throughout: to raise its standby, or to be taken over from with all others."""
    return shut(plan, outcomes, live, asking) or _in_time(Decision(True), stall)


def gate_back(plan: Plan, outcomes: Outcomes, live: Live, asking: Asking, stall: Stall) -> Decision:
    """Decide whether a worker may go back: that needs the lock and keeps the floor like any other turn."""
    return _lock(plan, live, asking) or _in_time(_floor(plan, outcomes, live, asking, stall), stall)


def lost_later(plan: Plan, outcomes: Outcomes, live: Live) -> list[str]:
    """Return the workers that were fine and cannot be reached any more."""
    return in_order(name for name in plan["workers"]
                    if live.get(name, {}).get("unreachable") and word_of(plan, outcomes, name) in GOOD)


def with_losses(outcomes: Outcomes, lost: Collection[str]) -> dict[str, Outcome]:
    """Return OUTCOMES with the LOST workers as what they are now: the budget is over the fleet as it stands."""
    out = dict(outcomes)
    for name in lost:
        out[name] = {**out.get(name, {}), "outcome": "unreachable", "cause": "host",
                     "reason": "lost after its update", "step": None}
    return out


def closed_gate(closed: Closed, hooks: Sequence[HookFailure]) -> Closed:
    """Return why the gate closed, or that a hook of the user closed it, or nothing."""
    if closed:
        return closed
    # One before a worker keeps only that worker from its update.
    failed = next((failure for failure in hooks if failure["stops"] and not failure.get("worker")), None)
    if failed is None:
        return {}
    return {"cause": "hook",
            "reason": f"{hook_line(failed)}; mend it and run the same command again"}


def closed_by_judgement(word: str, reason: str, plan: Plan) -> Closed | None:
    """Return how the gate closes for what was judged of the canaries, or nothing: it stays open."""
    if word == "fail":
        return {"cause": WORSE, "reason": f"{reason}; no further worker is touched"}
    if word == "inconclusive":
        return {"cause": UNJUDGED, "reason": f"{reason}; run the same command again to compare anew, or with "
                                             "-e solver_promote=now to go on all the same"}
    if plan["promote"] != "manual":
        return None
    good = f"{reason}; " if reason else ""
    return {"cause": AWAITS, "reason": f"{good}solver_promote is manual: run the same command with "
                                       "-e solver_promote=now to go on"}


def hook_line(failure: HookFailure) -> str:
    """Say in one line which hook failed, in which task, and why."""
    where = f" at {failure['worker']}" if failure.get("worker") else ""
    task = f" in its task '{one_line(failure['task'])}'" if failure.get("task") else ""
    return f"the hook {failure['hook']}{where} failed{task}: {one_line(failure['reason'])}"


def hook_outcome(failures: Sequence[HookFailure], plan: Plan, name: str) -> Outcome | None:
    """Return the outcome of a worker that its own hook kept from being updated, or nothing."""
    failure = next((own for own in failures if own["stops"] and own.get("worker") == name), None)
    if failure is None:
        return None
    planned = plan["workers"][name]
    return {"outcome": "failed", "cause": "hook", "reason": hook_line(failure), "from": planned["from"],
            "to": planned["to"], "step": None}


def _lock(plan: Plan, live: Live, asking: Asking) -> Decision | None:
    """Whether another run has taken over: the worker whose turn it is says so, or too many for the lock to be ours."""
    lost = in_order(name for name, seen in live.items() if (seen.get("failure") or {}).get("code") == "lock_lost")
    if not lost or (asking.name not in lost and len(plan["lock"]["workers"]) - len(lost) >= plan["lock"]["needed"]):
        return None
    message = one_line((live[lost[0]].get("failure") or {}).get("message"))
    return Decision(False, "lock", f"the rollout's lock on {', '.join(lost)} is lost: {message}; "
                                   "no further worker is touched")


def asked_to_stop(live: Live) -> Decision | None:
    """A request is left on all workers; from three on one that stands alone is no request."""
    asked = [seen["record"]["request"] for seen in live.values() if (seen.get("record") or {}).get("request")]
    if len(asked) < (1 if len(live) < 3 else 2):
        return None
    request = asked[0]
    why = f" ({one_line(request['reason'])})" if request.get("reason") else ""
    cause = "paused" if request["what"] == "pause" else "operator"
    return Decision(False, cause, f"{request['what']} asked for by {request.get('by') or '?'}{why}; "
                                  "run the same command again to go on")


def _inconclusive(outcomes: Outcomes) -> Decision | None:
    names = in_order(name for name, own in outcomes.items() if own.get("outcome") == "returned")
    if not names:
        return None
    return Decision(False, "inconclusive", f"{outcomes[names[0]].get('reason')}; {', '.join(names)} went back and "
                                           "serve; run the same command again when the provider solves")


def _budget(plan: Plan, outcomes: Outcomes) -> Decision | None:
    spent = spent_by(plan, outcomes)
    if len(spent) <= plan["tolerated"]:
        return None
    share = 100.0 * len(spent) / plan["fleet"]
    if plan["strategy"] == TOGETHER:
        return Decision(False, "budget", as_one(spent))
    return Decision(False, "budget", f"{len(spent)} of {plan['fleet']} workers failed ({share:.0f} %: "
                    f"{', '.join(spent)}), above solver_max_fail_percentage {plan['budget_percent']:g}; "
                    "no further worker is touched")


def as_one(spent: Sequence[str]) -> str:
    """Say why all went back."""
    return f"{', '.join(spent)} failed, and of workers that are updated together none may (solver_strategy: {TOGETHER})"


def _stage_budget(plan: Plan, outcomes: Outcomes) -> Decision | None:
    """A stage may bear less than the fleet does: a canary that fails says enough."""
    number, spent = overspent_stage(plan, outcomes)
    if not spent:
        return None
    tolerated = plan["stages"][number]["tolerated"]
    return Decision(False, "budget", f"{', '.join(spent)} of stage {number + 1} failed, of which "
                    f"{tolerated or 'none'} may (solver_strategy: {plan['strategy']}); no further worker is touched")


def overspent_stage(plan: Plan, outcomes: Outcomes) -> tuple[int, list[str]]:
    """Return the first stage of which more have failed than it bears, and who did; nobody where there is none."""
    spent = spent_by(plan, outcomes)
    for number, stage in enumerate(plan["stages"]):
        own = [name for name in spent if name in (*stage["workers"], *stage["there"])]
        if len(own) > stage["tolerated"]:
            return number, own
    return 0, []


def spent_by(plan: Plan, outcomes: Outcomes) -> list[str]:
    """Return the workers that count against the budget."""
    return in_order(name for name in plan["workers"] if word_of(plan, outcomes, name) in SPENDS)


def _quarantined(plan: Plan, outcomes: Outcomes) -> Decision | None:
    """Those that no lease brings back: as many as the window, and nobody else may leave service."""
    out = in_order(name for name, own in outcomes.items() if own.get("outcome") == "quarantined")
    if len(out) < plan["window"]:
        return None
    return Decision(False, "floor", f"{', '.join(out)} are out of service because of this rollout, which is the whole "
                                    f"window of {plan['window']}; no further worker is touched")


def _in_time(floor: Decision, stall: Stall) -> Decision:
    """The floor comes before the deadline, because it names who is out."""
    if not floor.open or stall.seconds <= stall.deadline_s:
        return floor
    return Decision(False, "progress", f"no worker became healthy for {stall.seconds:.0f} s, longer than "
                                       f"solver_progress_deadline {stall.deadline_s:g}; no further worker is touched")


def stuck(flight: Collection[str], seconds: float, deadline_s: float) -> Decision | None:
    """Close the gate when nothing has come of those in FLIGHT for longer than any turn takes.

    All that we do has an end. A hook of the user may have none, or it may end its host (C(meta: end_host)).
    """
    if not flight or seconds <= 2 * deadline_s:
        return None
    return Decision(False, "progress", f"nothing came of {', '.join(in_order(flight))} for {seconds:.0f} s, more than "
                                       f"twice solver_progress_deadline {deadline_s:g}; look at the hook before the "
                                       "worker; no further worker is touched")


def _floor(plan: Plan, outcomes: Outcomes, live: Live, asking: Asking, stall: Stall) -> Decision:
    """The serving workers may never be fewer than the fleet minus the window. Others may always be updated."""
    if not serves_now(live.get(asking.name) or {}):
        return Decision(True)
    silent = _routers_silent(live)
    if silent:
        return Decision(False, "floor", silent, wait=stall.seconds < stall.deadline_s)
    leaving = {*asking.flight, asking.name}
    out = out_of_service(plan, outcomes, live, leaving)
    if len(out) + len(leaving) <= plan["window"]:
        return Decision(True)
    text = (f"{', '.join(out)} {'is' if len(out) == 1 else 'are'} out of service; with "
            f"{', '.join(in_order(leaving))} fewer than {plan['floor']} of {plan['fleet']} workers would serve")
    if stall.seconds < stall.deadline_s:
        return Decision(False, "floor", text, wait=True)
    return Decision(False, "floor", f"{text}, for longer than solver_progress_deadline {stall.deadline_s:g}; bring "
                                    "them back, or raise solver_max_unavailable")


def with_routers(
    live: Live, workers: Mapping[str, Mapping[str, str]], routers: Mapping[str, Router],
) -> dict[str, Seen]:
    """Return LIVE with what the ROUTERS (results of router_info by host) say of each worker."""
    silent = {router: one_line(view.get("msg")) for router, view in routers.items() if "servers" not in view}

    def views(name: str) -> dict[str, bool]:
        unknown: Server = {}
        return {router: bool(view["servers"].get(name, unknown).get("serving"))
                for router, view in routers.items() if "servers" in view}

    return {host: {**seen, "routers": views(workers[host]["name"]), "silent_routers": silent}
            for host, seen in live.items()}


def _routers_silent(live: Live) -> str:
    """Say so, where not one router can be asked: then nobody knows what the clients see."""
    for seen in live.values():
        if "routers" in seen and not seen["routers"]:
            silent = "; ".join(f"{router}: {why}" for router, why in sorted(seen["silent_routers"].items()))
            return f"no router can be asked who serves ({silent}); bring one back, or set solver_floor_view: workers"
    return ""


def serves_now(seen: Seen) -> bool:
    """Whether the live census says that the worker takes tasks, and each router that could be asked sends it some."""
    worker = seen["census"]["worker"] if "census" in seen else None
    return serving(worker) and accepts(worker) and all((seen.get("routers") or {}).values())


def out_of_service(plan: Plan, outcomes: Outcomes, live: Live, leaving: Collection[str]) -> list[str]:
    """Return the workers that are known not to serve, without those that are LEAVING by the plan.

    A lost line is no proof that a worker is out: one that could not be reached from the beginning counts against the
    budget alone. One that was lost in the middle of its update may still hold our drain, so it counts here as well, and
    so does one that was seen out of service before it was lost.
    """
    out = []
    for name in in_order(plan["workers"]):
        if name in leaving:
            continue
        seen = live.get(name)
        if seen is None or seen.get("unreachable"):
            if may_be_out(outcomes.get(name) or {}) or seen_out(plan["workers"][name], outcomes.get(name) or {}):
                out.append(name)
        elif not serves_now(seen):
            out.append(name)
    return out


def word_of(plan: Plan, outcomes: Outcomes, name: str) -> str:
    """Return what became of a worker, or what the plan says of it, or ``pending``."""
    known = (outcomes.get(name) or {}).get("outcome")
    if known:
        return str(known)
    action = plan["workers"][name]["action"]
    return "pending" if action == "update" else str(action)


def done_count(plan: Plan, outcomes: Outcomes) -> int:
    """Return how many of the workers to update have an outcome."""
    return sum(1 for name in plan["order"] if word_of(plan, outcomes, name) != "pending")


def undoes(plan: Plan, outcomes: Outcomes, gate_cause: str, on_abort: str) -> bool:
    """Whether all that this rollout updated goes back, after an abort for its release's sake.

    Also what an earlier, interrupted run of the same rollout updated. Never after a rollback or a recovery.
    """
    if plan["kind"] != "update":
        return False
    if gate_cause == UNJUDGED:
        return plan["on_inconclusive"] == "return"
    if on_abort != "rollback" or gate_cause not in ("budget", WORSE):
        return False
    if gate_cause == WORSE:
        return True
    return any(cause_of(plan, outcomes, name) == "release" for name in spent_by(plan, outcomes))


def left_behind(plan: Plan, outcomes: Outcomes, gate_cause: str) -> list[str]:
    """Return whom an interrupted run left in its drain, and who will not have a turn because the gate closed.

    A run that touches no further worker still leaves nobody drained, unless it lost the lock: then they are another's.
    """
    if not gate_cause or gate_cause == "lock" or _serve_what_was_left(plan):
        return []
    return [name for name in plan["order"]
            if word_of(plan, outcomes, name) == "pending" and _was_left(plan["workers"][name])]


def _serve_what_was_left(plan: Plan) -> bool:
    """Whether workers serve the release that others of a dead run are held with: alone these must not go back."""
    return plan["strategy"] == TOGETHER and any(
        own["together"] and own["serving"] and switched_before(own) for own in plan["workers"].values())


def _was_left(planned: PlannedWorker) -> bool:
    """Whether the census found the worker in a drain of ours, or switched and not serving."""
    begun = planned["steal"] or (switched_before(planned) and not planned["serving"])
    return bool(begun and planned["back_to"])


def roll_back(plan: Plan, outcomes: Outcomes, gate_cause: str, on_abort: str) -> list[str]:
    """Return the workers that go back to where they came from; those left behind first, they are out."""
    left = left_behind(plan, outcomes, gate_cause)
    done = [name for name in in_order(plan["workers"], reverse=True)
            if word_of(plan, outcomes, name) in GOOD and moved(plan["workers"][name])]
    return left + (done if undoes(plan, outcomes, gate_cause, on_abort) else [])


def back_plan(
    plan: Plan, outcomes: Outcomes, gate_cause: str, on_abort: str, dead: Collection[str] = (),
) -> Plan:
    """Return the way back in the shape of a plan: one stage; C(undoes) as of the function.

    DEAD are those whose hosts answer while no process of theirs does: there is nothing to be drained.
    """
    names = roll_back(plan, outcomes, gate_cause, on_abort)
    left = left_behind(plan, outcomes, gate_cause)
    # Those that are out and stay out take their part of the window.
    width = max(1, plan["window"] - sum(1 for own in outcomes.values() if may_be_out(own)))
    stages: list[Stage] = [{"workers": names, "there": [], "window": width, "tolerated": plan["tolerated"],
                            "after": "nothing"}]
    return {**plan, "order": names, "stages": stages if names else [], "way_back": True,
            "undoes": undoes(plan, outcomes, gate_cause, on_abort),
            "workers": {name: _way_back(plan["workers"][name], name in left, name in dead) for name in names}}


def _way_back(worker: PlannedWorker, left: bool, dead: bool) -> PlannedWorker:
    """Without a probe: that release has served here, and a provider that is down must not keep it from serving.

    One that was LEFT behind is drained already, and may not yet run what it was to be taken to.
    """
    back: PlannedWorker = {
        **worker, "switch": "in_place", "to": worker["back_version"], "release": worker["back_to"], "back_to": None,
        "back_version": None, "probe": False}
    if left:
        return back
    return {**back, "from": worker["to"], "from_release": worker["release"], "serving": not dead, "steal": False,
            "on_expire": None}


def may_be_out(outcome: Outcome) -> bool:
    """Quarantined, or lost in the middle of its update: it may still hold a drain of ours."""
    return outcome.get("outcome") == "quarantined" or (
        outcome.get("outcome") in MAY_RETURN and bool(outcome.get("step")))


def seen_out(planned: PlannedWorker, outcome: Outcome) -> bool:
    """Whether the last that is known of a worker is that it answered, and did not serve."""
    served = outcome.get("outcome") in ("updated", "reverted", "returned")
    return planned["action"] != "unreachable" and not planned["serving"] and not served


def moved(worker: PlannedWorker) -> bool:
    """Whether this rollout brought the worker to another release than it came from."""
    return bool(worker["back_to"]) and worker["back_to"] != worker["release"]


def cause_of(plan: Plan, outcomes: Outcomes, name: str) -> str | None:
    """Return the cause of a worker's failure; one that failed in an earlier run failed by its release."""
    known = (outcomes.get(name) or {}).get("cause")
    if known:
        return str(known)
    return {"unreachable": "host", "failed": "release", "unknown": "unknown"}.get(word_of(plan, outcomes, name))


def reference_workers(
    plan: Plan, workers: Mapping[str, Mapping[str, str]], flight: Sequence[str], asking: str,
) -> list[dict[str, str]]:
    """Return the workers that can be asked for a reference solve: they served at the census, and none is in FLIGHT.

    Those that still are where they came from are named first: they are not what is being tried. Each worker in flight
    begins with another one of these, because a worker solves one probe at a time.
    """
    leaving = [*(name for name in flight if name != asking), asking]
    place = {name: number for number, name in enumerate(plan["order"])}
    now = max(place.get(name, -1) for name in leaving)
    names = [name for name, worker in plan["workers"].items() if worker["serving"] and name not in leaving]
    names.sort(key=lambda name: -place.get(name, -1))
    waiting = [name for name in names if place.get(name, -1) > now]
    shift = in_order(leaving).index(asking) % len(waiting) if waiting else 0
    names = waiting[shift:] + waiting[:shift] + [name for name in names if name not in waiting]
    return [{"host": name, "control_socket": str(workers[name]["control_socket"])} for name in names]
