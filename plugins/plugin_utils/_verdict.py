# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The verdict: one document for every outcome, the exit code that follows, and lines for people. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import MIXED, accepts, mixed_warning, serving
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import (
    AWAITS,
    GOOD,
    TOGETHER,
    UNJUDGED,
    Outcomes,
    as_one,
    cause_of,
    done_count,
    overspent_stage,
    spent_by,
    word_of,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._regions import region_word
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SETTINGS, shown_settings
from ansible_collections.solver.fleet.plugins.plugin_utils._step import switched_before
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Census, Closed, Outcome, Plan, PlannedWorker

Final = Mapping[str, Census]

# The name changes when a field changes its meaning, the version when fields come: readers of 1.0 read 1.1.
VERDICT_SCHEMA = "solver.verdict/1"
SCHEMA_VERSION = "1.1"
# Of which controller and which run; the document has them by themselves, or they are of no use elsewhere.
NOT_TOLD = frozenset({"solver_rollout_id", "solver_verdict_file", "solver_report_file", "solver_metrics_file",
                      "solver_events_dir", "solver_probe_expect", "solver_status_format", "solver_status_watch"})
# What was told of a run where nothing was begun.
NO_STORY: Mapping[str, Any] = {"steps": {}, "samples": [], "waits": []}
# What the gate closed for, and the verdict that it leads to.
_WORD_OF_CAUSE = {"paused": "paused", "inconclusive": "inconclusive", UNJUDGED: "inconclusive",
                  AWAITS: "awaiting_promotion"}
# Nothing is wrong: nobody is marked as failed.
FINE = ("planned", "completed", "awaiting_promotion")


def verdict(
    plan: Plan, outcomes: Outcomes, final: Final, *, gate: Closed | None = None,
    backs: Outcomes | None = None, undone: bool = True, check_mode: bool = False,
    story: Mapping[str, Any] | None = None, judgement: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the verdict document: one shape, whatever happened.

    FINAL is the census after everything, GATE the last decision of the gate, BACKS what became of each worker that
    was rolled back after an abort, UNDONE whether that was to undo the rollout, STORY what happened when, and JUDGEMENT
    what the canaries showed.
    """
    story = NO_STORY if story is None else story
    seen = {} if check_mode else judged(plan, outcomes, final, backs or {})
    workers = [{**worker_row(plan, seen, final, name), "steps": story["steps"].get(name, [])}
               for name in plan["workers"]]
    closed = closed_by(plan, seen, gate or {})
    if final and not check_mode:
        plan = {**plan, "warnings": [text for text in plan["warnings"] if not text.startswith(MIXED)]
                + mixed_warning(_running(own) for own in final.values())}
    if check_mode:
        word = "planned"
    elif closed:
        word = _closed_word(closed, (backs or {}) if undone else {}, seen if plan["strategy"] == TOGETHER else {})
    else:
        word = "completed" if all(_done(worker, plan) for worker in workers) else "incomplete"
    made = document(word, plan, workers, [closed["reason"]] if closed and not check_mode else [])
    return {**made, "judgement": dict(judgement) if judgement else None,
            "spent": [] if check_mode else spent_by(plan, seen), "samples": story["samples"],
            "waits": story["waits"]}


def _running(census: Census) -> Any:
    worker: Mapping[str, Any] = census.get("worker") or {}
    return (worker.get("instance") or {}).get("version")


def judged(plan: Plan, outcomes: Outcomes, final: Final, backs: Outcomes) -> dict[str, Outcome]:
    """Return the outcomes as they stand at the end: rolled back, or gone bad after their turn."""
    out: dict[str, Outcome] = {}
    for name, planned in plan["workers"].items():
        own: Outcome = {**outcomes.get(name, {})}
        back = backs.get(name)
        if back:
            own = _rolled_back(own, back, planned)
        elif word_of(plan, outcomes, name) in GOOD:
            own = {**own, **_late_loss(planned, final.get(name) or {})}
        out[name] = own
    return out


def _rolled_back(own: Outcome, back: Outcome, planned: PlannedWorker) -> Outcome:
    good = back.get("outcome") == "updated"
    if good and not own.get("outcome") and not switched_before(planned):
        return {**own, "reason": f"it was left drained by a run that was interrupted; it serves "
                                 f"{planned['back_version']} again"}
    reason = f"returned to {planned['back_version']}" if good else \
        f"could not be returned to {planned['back_version']}: {back.get('reason')}"
    word = "rolled_back" if good else {"failed": "rollback_failed", "unreachable": "unreachable"}.get(
        str(back.get("outcome")), "quarantined")
    timings = {**own.get("timings", {}), **{f"back_{key}": value for key, value in back.get("timings", {}).items()}}
    return {**own, "outcome": word, "cause": None if good else back.get("cause") or "unknown", "reason": reason,
            "timings": timings, "log": back.get("log") or own.get("log", [])}


def _late_loss(planned: PlannedWorker, census: Census) -> Outcome:
    """A worker that was fine at its turn must still be fine when the verdict is given."""
    if not census:
        return {}
    if census.get("unreachable"):
        return {"outcome": "unreachable", "cause": "host",
                "reason": f"lost after its update: {one_line(census.get('msg'))}"}
    worker: Mapping[str, Any] = census.get("worker") or {}
    release = (worker.get("instance") or {}).get("release")
    if serving(worker) and accepts(worker) and release == planned["release"]:
        return {}
    state = worker.get("state") or census.get("finding")
    if serving(worker) and not accepts(worker):
        state = "running and takes no tasks"
    return {"outcome": "failed", "cause": "unknown",
            "reason": f"after its update it is {state}, release {release or 'unknown'}"}


def closed_by(plan: Plan, outcomes: Outcomes, gate: Closed) -> Closed | None:
    """Return the gate's last word if it closed, or the budget once more: it holds to the last worker."""
    spent = spent_by(plan, outcomes)
    late = spent if len(spent) > plan["tolerated"] else overspent_stage(plan, outcomes)[1]
    if gate.get("cause") == AWAITS and late:
        return {"cause": "budget", "reason": f"{', '.join(late)} failed while the rollout waited to be promoted"}
    if gate.get("cause") and (done_count(plan, outcomes) < len(plan["order"]) or gate["cause"] == "budget"):
        return gate
    if spent and plan["strategy"] == TOGETHER:
        return {"cause": "budget", "reason": as_one(spent)}
    if len(spent) > plan["tolerated"]:
        return {"cause": "budget", "reason": f"{len(spent)} of {plan['fleet']} workers failed ({', '.join(spent)}), "
                                             f"above solver_max_fail_percentage {plan['budget_percent']:g}"}
    returned = [name for name in plan["order"] if (outcomes.get(name) or {}).get("outcome") == "returned"]
    if returned:
        return {"cause": "inconclusive", "reason": str(outcomes[returned[0]].get("reason"))}
    return None


def _closed_word(closed: Closed, backs: Outcomes, together: Outcomes) -> str:
    """Return the verdict of a rollout that was ended; those that go TOGETHER go back in their turns."""
    if closed["cause"] in _WORD_OF_CAUSE:
        return _WORD_OF_CAUSE[closed["cause"]]
    words = {own.get("outcome") for own in together.values()}
    if words & {"rolled_back", "reverted"}:
        return "rollback_failed" if words & {"quarantined", "unreachable", "updated"} else "rolled_back"
    if not backs:
        return "aborted"
    return "rolled_back" if all(back.get("outcome") == "updated" for back in backs.values()) else "rollback_failed"


def document(
    word: str, plan: Mapping[str, Any], workers: Iterable[Mapping[str, Any]] = (), reasons: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a verdict document with the given word."""
    return {
        "schema": VERDICT_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "verdict": word,
        "kind": plan.get("kind", "update"),
        "strategy": plan.get("strategy"),
        "rollout_id": plan.get("rollout_id"),
        "run_id": plan.get("run_id"),
        "who": plan.get("who"),
        "target": plan.get("target"),
        "started_at": plan.get("started_at"),
        "ended_at": plan.get("ended_at"),
        "reasons": list(reasons),
        "warnings": list(plan.get("warnings", [])),
        "window": plan.get("window"),
        "floor": plan.get("floor"),
        "budget_percent": plan.get("budget_percent"),
        "tolerated": plan.get("tolerated"),
        "spent": [],
        "estimate_s": plan.get("estimate_s"),
        "waves": [stage["workers"] for stage in plan.get("stages", []) if stage["workers"]],
        "settings": plan.get("settings", {}),
        "judgement": None,
        "workers": list(workers),
        "samples": [],
        "waits": [],
    }


def settings_shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that belong into the document: those that are shown, and others where they were changed."""
    shown = shown_settings()
    return {name: settings.get(name) for name in SETTINGS
            if name in shown or (name in settings and _tells(name, settings))}


def _tells(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting of the whole fleet was changed, and can hold no password: a URL may, and so may a mapping."""
    row, value = SETTINGS[name], settings[name]
    public = not (row.secret or row.per_worker or row.kind == "mapping" or name in NOT_TOLD)
    return public and value != row.default and "://" not in str(value)


def who_shown(who: Mapping[str, Any]) -> dict[str, Any]:
    """Return who runs a rollout, and where, as the document says it."""
    return {"user": who["user"], "job": who["job"], "host": who["controller"].get("host")}


def worker_row(plan: Plan, outcomes: Outcomes, final: Final, name: str) -> dict[str, Any]:
    """Return the entry of one worker, without its steps."""
    planned = plan["workers"][name]
    known = outcomes.get(name) or {}
    word = word_of(plan, outcomes, name)
    now: Mapping[str, Any] = final.get(name, {}).get("worker") or {}
    same_books = (now.get("journal") or {}).get("id") == planned["journal"]
    return {
        "name": name,
        "from": planned["back_version"] or planned["from"],
        "to": planned["to"] or plan["target"],
        "release": planned["release"],
        "outcome": "not_attempted" if word == "pending" else word,
        "cause": None if word in ("pending", "rolled_back", *GOOD) else cause_of(plan, outcomes, name),
        "reason": known.get("reason") or planned["reason"],
        "open_at_drain": known.get("open_at_drain"),
        "timings": known.get("timings", {}),
        "totals": {"before": planned["totals"], "after": now.get("totals") if same_books else None},
        "runs": (now.get("instance") or {}).get("version"),
        "log": known.get("log", []),
    }


def _done(worker: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    """An update is for the whole fleet, a rollback for those that need it; after a recovery every worker serves."""
    if worker["outcome"] in GOOD:
        return True
    if plan["kind"] == "update" or worker["outcome"] != "excluded":
        return False
    planned = plan["workers"][worker["name"]]
    return plan["kind"] == "rollback" or bool(planned.get("left_out") or planned["serving"])


def not_done(doc: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    """Return, for each worker that keeps the exit code from being 0, why."""
    if doc["verdict"] in FINE:
        return {}
    recovers = doc["kind"] == "recover"
    out = {worker["name"]: f"{worker['name']} {'does not serve' if recovers else 'is not at ' + str(worker['to'])}: "
           + worker["outcome"] + (f" ({worker['reason']})" if worker["reason"] else "")
           for worker in doc["workers"] if not _done(worker, plan)}
    first = next(iter(plan["workers"]), "the fleet")
    return out or {first: f"{doc['verdict']}: {'; '.join(doc['reasons'])}"}


def lost_tasks(doc: Mapping[str, Any]) -> dict[str, int]:
    """Return what the journals say was added to ``uncertain`` and ``expired`` while the rollout ran."""
    out = {"uncertain": 0, "expired": 0}
    for worker in doc["workers"]:
        before, after = worker["totals"]["before"] or {}, worker["totals"]["after"] or {}
        for name in out:
            if name in before and name in after:
                out[name] += after[name] - before[name]
    return out


def stats_of(doc: Mapping[str, Any], hosts: str) -> dict[str, Any]:
    """Return what a workflow of AWX goes on by: its next jobs get these as extra variables, so none is a setting.

    HOSTS is what picked the fleet: the name of its region where there are several.
    """
    counts = Counter(str(worker["outcome"]) for worker in doc["workers"])
    return {"solver_last_verdict": doc["verdict"], "solver_last_rollout_id": doc["rollout_id"],
            "solver_last_counts": dict(sorted(counts.items())), "solver_last_duration_s": _lasted(doc),
            "solver_last_reason": "; ".join(doc["reasons"])[:500], **region_word(doc["kind"], hosts, doc["verdict"])}


def _lasted(doc: Mapping[str, Any]) -> int:
    """Return how long the rollout took; a check has no end."""
    if not doc.get("started_at") or not doc.get("ended_at"):
        return 0
    began, ended = (datetime.fromisoformat(doc[name].replace("Z", "+00:00")) for name in ("started_at", "ended_at"))
    return round((ended - began).total_seconds())


def verdict_lines(doc: Mapping[str, Any]) -> list[str]:
    """Return the verdict as lines for people: the verdict, a line a worker, the reasons."""
    workers = doc["workers"]
    good = sum(1 for worker in workers if worker["outcome"] in GOOD)
    lines = [f"{doc['verdict']}: {good} of {len(workers)} workers run {doc['target']} (rollout {doc['rollout_id']})"]
    for worker in workers:
        change = f"{worker['from'] or '?'} -> {worker['to']}"
        drained = "" if worker["open_at_drain"] is None else f", {worker['open_at_drain']} open at drain"
        blame = f" [{worker['cause']}]" if worker["cause"] else ""
        reason = f": {worker['reason']}" if worker["reason"] else ""
        lines.append(f"{worker['name']:<12} {worker['outcome']:<13} {change}{drained}{blame}{reason}")
    if doc["verdict"] not in ("planned", "refused"):
        lost = lost_tasks(doc)
        lines.append(f"books: {lost['uncertain']} tasks uncertain, {lost['expired']} expired since the rollout began")
    lines += [f"warning: {text}" for text in doc["warnings"]]
    return lines + [f"why: {reason}" for reason in doc["reasons"]]
