# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The decisions of a rollout, as pure functions of plain data: plan, gate, outcome, verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

VERDICT_SCHEMA = "solver.verdict/1"

# What a worker may end as. Everything in SPENDS counts against the failure budget.
GOOD = frozenset({"updated", "already"})
SPENDS = frozenset({"failed", "reverted", "quarantined", "unreachable", "unknown"})

# The forward steps of one worker's update, in order, and what a failure of each is blamed on.
STEPS: tuple[tuple[str, str], ...] = (
    ("drain", "drain"), ("switch", "release"), ("verify", "release"), ("resume", "release"), ("soak", "release"))
REVERT_STEPS = ("revert", "revert_verify", "revert_resume")

# The switch failed before it touched anything: the drain is to blame, not the release.
BEFORE_SWITCH = frozenset({"not_safe_to_stop", "foreign_drain", "lease_lost", "no_drain", "hung", "denied", "foreign"})


# Which settings of the playbooks stand behind the option that a module complained about.
_PACKAGE = "solver_version, solver_package, solver_wheelhouse"
_SETTINGS_OF_CODE = {
    "pip_failed": _PACKAGE, "command_failed": _PACKAGE, "no_version": _PACKAGE, "no_package": _PACKAGE,
    "bad_requirement": _PACKAGE, "not_a_wheel": _PACKAGE, "ambiguous_package": _PACKAGE, "version_mismatch": _PACKAGE,
    "download": _PACKAGE, "no_wheelhouse": "solver_wheelhouse", "wrong_digest": "solver_package_sha256, solver_package",
    "release_invalid": "solver_version", "no_python": "solver_worker_python", "timeout": "solver_deploy_timeout",
    "no_space": "solver_base_dir, solver_keep_releases", "unwritable": "solver_base_dir",
}
_SETTINGS_OF_KEY = {
    "provider.api_key_file": "solver_api_key_file", "provider.url": "solver_provider_url",
    "data.host": "solver_data_host", "data.port": "solver_data_port", "data.token_file": "solver_data_token_file",
    "control.socket": "solver_control_socket", "worker.name": "solver_worker_name",
}


def settings_behind(result: Mapping[str, Any]) -> str:
    """Return the solver_ settings that mend a module's failure, or nothing."""
    code = str((result.get("failure") or {}).get("code"))
    if code != "config_refused":
        return _SETTINGS_OF_CODE.get(code, "")
    message = str(result.get("msg"))
    named = [setting for key, setting in _SETTINGS_OF_KEY.items() if key in message]
    return ", ".join([*named, "solver_worker_config"])


# What every worker must offer; the control API names them as mandatory.
MANDATORY = ("drain.lease", "drain.persist", "probe")


def lacking(worker: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> list[str]:
    """Return the features that this rollout needs of a worker and that it does not have; none of a silent one."""
    if not worker:
        return []
    needed = {*MANDATORY, *(["handover"] if settings.get("solver_drain_mode") == "handover" else [])}
    return sorted(needed - set((worker.get("api") or {}).get("features") or []))


def on_drain_timeout(worker: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> str:
    """A worker that cannot hand over is put back into service instead."""
    wanted = str(settings.get("solver_on_drain_timeout", "handover"))
    features = ((worker or {}).get("api") or {}).get("features") or []
    return "return_to_service" if wanted == "handover" and worker and "handover" not in features else wanted


def serving(worker: Mapping[str, Any] | None) -> bool:
    """Whether a status document says that the worker takes users' tasks."""
    return bool(worker) and worker.get("state") == "running" and not worker.get("drain")  # type: ignore[union-attr]


def make_plan(
    fleet: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], rollout_id: str, forks: int,
) -> dict[str, Any]:
    """Return what the rollout will do. FLEET maps each worker to its ``census`` and ``staged`` results."""
    excluded = set(settings["solver_exclude"])
    workers = {name: _plan_worker(facts, settings, name in excluded) for name, facts in sorted(fleet.items())}
    todo = sorted(
        (name for name, worker in workers.items() if worker["action"] == "update"),
        key=lambda name: (workers[name]["serving"], name))
    window = min(int(settings["window"]), max(1, forks))
    size = len(fleet)
    return {
        "rollout_id": rollout_id,
        "target": settings["solver_version"],
        "fleet": size,
        "window": window,
        "floor": size - window,
        "budget_percent": settings["solver_max_fail_percentage"],
        "tolerated": tolerated(size, settings["solver_max_fail_percentage"]),
        "order": todo,
        "waves": [todo[start:start + window] for start in range(0, len(todo), window)],
        "workers": workers,
        "refused": _refusals(workers),
        "warnings": _plan_warnings(workers, settings, window),
    }


def tolerated(fleet: int, budget_percent: float) -> int:
    """Return how many failures the budget bears: strictly more than BUDGET_PERCENT of FLEET stops the rollout."""
    return int(fleet * budget_percent / 100 + 1e-9)


def _plan_worker(facts: Mapping[str, Any], settings: Mapping[str, Any], excluded: bool) -> dict[str, Any]:
    census, staged = facts.get("census") or {}, facts.get("staged") or {}
    worker = census.get("worker") or {}
    release = staged.get("release") or {}
    instance = worker.get("instance") or {}
    current = (census.get("releases") or {}).get("current") or {}
    plan = {
        "from": instance.get("version") or current.get("version"),
        "from_release": instance.get("release") or current.get("id"),
        "to": release.get("version"),
        "release": release.get("id"),
        "finding": census.get("finding"),
        "state": worker.get("state"),
        "serving": serving(worker),
        "lacks": lacking(worker, settings),
        "on_drain_timeout": on_drain_timeout(worker, settings),
        "action": "update",
        "reason": "",
    }
    plan.update(_action(census, staged, plan, excluded))
    return plan


def _action(
    census: Mapping[str, Any], staged: Mapping[str, Any], plan: Mapping[str, Any], excluded: bool,
) -> dict[str, str]:
    if excluded:
        return {"action": "excluded", "reason": "named by solver_exclude"}
    if not census:
        return {"action": "unreachable", "reason": "it was lost before the rollout began"}
    if census.get("unreachable") or staged.get("unreachable"):
        return {"action": "unreachable", "reason": one_line(census.get("msg") or staged.get("msg"))}
    refusal = _refusal(census, staged, plan)
    if refusal:
        return {"action": "refuse", "reason": refusal}
    running_it = plan["from_release"] == plan["release"] and staged.get("at_target")
    if running_it and plan["serving"]:
        return {"action": "already", "reason": f"runs {plan['to']}"}
    return {"action": "update", "reason": "not serving, goes first" if not plan["serving"] else ""}


def _refusal(census: Mapping[str, Any], staged: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Return why the whole rollout must not begin because of this worker, or nothing."""
    if plan["finding"] in ("denied", "foreign"):
        return one_line(census.get("message"))
    if plan["lacks"]:
        return (f"the worker lacks {', '.join(plan['lacks'])}, which this update needs; "
                "update its software, or name it in solver_exclude")
    for result in (staged, census):
        if result.get("failed"):
            settings = settings_behind(result)
            return one_line(result.get("msg")) + (f" [{settings}]" if settings else "")
    return "" if plan["release"] else "no release was staged for it"


def one_line(text: Any) -> str:
    """Return the message without line breaks, for tables and reasons."""
    return " ".join(str(text or "").split())


def _refusals(workers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say each reason once, with the workers it is true of: a bad release is bad on all of them."""
    by_reason: dict[str, list[str]] = {}
    for name, worker in workers.items():
        if worker["action"] == "refuse":
            by_reason.setdefault(worker["reason"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _plan_warnings(
    workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], window: int,
) -> list[str]:
    out = []
    if window < int(settings["window"]):
        out.append(f"forks is {window}, so {window} workers at a time instead of {settings['window']}; "
                   f"use --forks {settings['window']} for the whole window")
    versions = sorted({str(worker["from"]) for worker in workers.values() if worker["from"]})
    if len(versions) > 1:
        out.append(f"the fleet runs mixed versions: {', '.join(versions)}")
    return out


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return the plan as lines for people."""
    lines = [
        f"{plan['fleet']} workers, {len(plan['order'])} to update to {plan['target']}, "
        f"{plan['window']} at a time, at least {plan['floor']} keep serving; "
        f"up to {plan['tolerated']} may fail ({plan['budget_percent']:g} %)"]
    for number, wave in enumerate(plan["waves"], 1):
        moves = (f"{name} {plan['workers'][name]['from'] or '?'} -> {plan['workers'][name]['to']}" for name in wave)
        lines.append(f"wave {number}: {', '.join(moves)}")
    lines += [f"{name}: {worker['action']} ({worker['reason']})" for name, worker in plan["workers"].items()
              if worker["action"] != "update"]
    return lines + [f"warning: {text}" for text in plan["warnings"]]


WAVE_GROUP = "solver_wave_"


def wave_groups(groups: Iterable[str]) -> list[str]:
    """Return the names of the groups that hold the waves, in order."""
    return sorted(name for name in groups if str(name).startswith(WAVE_GROUP))


def wave_pairs(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return which worker belongs to which wave's group."""
    return [{"worker": name, "group": f"{WAVE_GROUP}{number:04d}"}
            for number, wave in enumerate(plan["waves"], 1) for name in wave]


def gate(plan: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Decide whether a further wave may begin; OUTCOMES holds what is known of each worker so far."""
    spent = sorted(name for name in plan["workers"] if _outcome_name(plan, outcomes, name) in SPENDS)
    fleet = plan["fleet"]
    share = 100.0 * len(spent) / fleet if fleet else 0.0
    within_budget = len(spent) <= plan["tolerated"]
    out = sorted(name for name in plan["workers"] if _out_of_service(outcomes.get(name) or {}))
    is_open = within_budget and len(out) < plan["window"]
    done = sum(1 for name in plan["order"] if _outcome_name(plan, outcomes, name) != "pending")
    reason = "" if is_open else (
        f"{', '.join(out)} may be out of service because of this rollout, which is the whole window of "
        f"{plan['window']}; no further worker is touched") if within_budget else (
        f"{len(spent)} of {fleet} workers failed ({share:.0f} %: {', '.join(spent)}), above "
        f"solver_max_fail_percentage {plan['budget_percent']:g}; no further worker is touched")
    return {"open": is_open, "within_budget": within_budget, "reason": reason, "spent": spent, "done": done,
            "todo": len(plan["order"])}


def _out_of_service(outcome: Mapping[str, Any]) -> bool:
    """Quarantined, or lost in the middle of its update: it may still hold a drain of ours."""
    word = outcome.get("outcome")
    return word in ("quarantined", "unknown") or (word == "unreachable" and bool(outcome.get("step")))


def _outcome_name(plan: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]], name: str) -> str:
    known = (outcomes.get(name) or {}).get("outcome")
    if known:
        return str(known)
    action = plan["workers"][name]["action"]
    return "pending" if action == "update" else str(action)


def step_ok(result: Mapping[str, Any] | None) -> bool:
    """Whether a registered result of a step says that the step is done."""
    if not result or result.get("skipped"):
        return False
    return not (result.get("failed") or result.get("unreachable")) and result.get("done", True) is True


def failed_step(steps: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the first forward step that ran and did not succeed."""
    for name, _cause in STEPS:
        result = steps.get(name)
        if not result:
            return name if name != "soak" else None
        if result.get("skipped") and name == "soak":
            continue
        if not step_ok(result):
            return name
    return None


def next_action(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """Decide what follows a failed step: ``revert``, ``resume`` or ``nothing`` more for this worker.

    An unreachable worker is left alone: its lease brings it back, and the operator hears its name.
    """
    step = failed_step(steps)
    if step is None:
        return "nothing"
    result = steps.get(step) or {}
    if result.get("unreachable"):
        return "nothing"
    if step == "drain":
        # worker_drain gives back what its own call took; an earlier call may have begun the drain.
        code = (result.get("failure") or {}).get("code")
        left = result.get("gave_back") or code == "foreign_drain" or not result or unverified(result)
        return "nothing" if left else "resume"
    if unverified(steps.get("drain") or {}):
        return "nothing" if step == "switch" and _untouched(result) else "revert"
    if step == "switch" and _untouched(result):
        return "resume"
    return "revert" if step == "switch" or not _untouched(steps.get("switch") or {}) else "nothing"


def _untouched(switch: Mapping[str, Any]) -> bool:
    """Whether the switch said that it changed nothing; a module that died without a word may have."""
    return switch.get("switched") is False and not switch.get("restarted")


def unverified(drained: Mapping[str, Any]) -> bool:
    """Whether the drained process is of another version than the one whose drain it is: it must not just resume."""
    worker = drained.get("worker") or {}
    drain = worker.get("drain") or {}
    return bool(drain.get("version")) and drain["version"] != (worker.get("instance") or {}).get("version")


def outcome(planned: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of one worker, from the registered results of its steps."""
    step = failed_step(steps)
    drain, switch = steps.get("drain") or {}, steps.get("switch") or {}
    out: dict[str, Any] = {
        "outcome": "updated", "cause": None, "reason": "", "step": step,
        "from": planned.get("from"), "to": planned.get("to"),
        "open_at_drain": drain.get("open_at_drain"),
        "timings": {name: result.get("elapsed_s") for name, result in steps.items()
                    if result and result.get("elapsed_s") is not None},
        "totals_before": switch.get("totals_before"),
        "log": [],
    }
    if step is None:
        return out
    result = steps.get(step) or {}
    out["reason"] = f"{step}: {one_line(result.get('msg')) or 'not finished in time'}"
    out["log"] = _log_lines(result)
    out["cause"] = _cause(step, result)
    out["outcome"] = _failed_outcome(result, steps)
    if out["outcome"] == "quarantined":
        out["reason"] += "; " + _revert_reason(steps)
    return out


def _cause(step: str, result: Mapping[str, Any]) -> str:
    if result.get("unreachable"):
        return "host"
    failure = result.get("failure") or {}
    fault = (failure.get("details") or {}).get("fault")
    if failure.get("code") == "bad_option" or fault in ("account", "network"):
        return "unknown"  # not the release's doing
    if step == "switch" and (result.get("failure") or {}).get("code") in BEFORE_SWITCH:
        return "drain"
    return dict(STEPS)[step] if result else "unknown"


def _failed_outcome(result: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]]) -> str:
    if result.get("unreachable"):
        return "unreachable"
    action = next_action(steps)
    if action == "nothing":
        return "failed"
    if action == "resume":
        return "failed" if step_ok(steps.get("give_back")) else "quarantined"
    return "reverted" if all(step_ok(steps.get(name)) for name in REVERT_STEPS) else "quarantined"


def _revert_reason(steps: Mapping[str, Mapping[str, Any]]) -> str:
    for name in (*REVERT_STEPS, "give_back"):
        result = steps.get(name)
        if result and not step_ok(result):
            return f"{name.replace('_', ' ')} failed: {one_line(result.get('msg'))}"
    return "it could not be brought back"


def _log_lines(result: Mapping[str, Any]) -> list[str]:
    details = (result.get("failure") or {}).get("details") or {}
    log = details.get("log") or []
    return [str(line) for line in log][-20:] if isinstance(log, Sequence) and not isinstance(log, str) else []


def verdict(
    plan: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]], check_mode: bool = False,
) -> dict[str, Any]:
    """Return the verdict document: one shape, whatever happened."""
    workers = [_verdict_worker(plan, outcomes, name) for name in plan["workers"]]
    at_gate = gate(plan, outcomes)
    if check_mode:
        word = "planned"
    elif not at_gate["within_budget"] or (not at_gate["open"] and at_gate["done"] < at_gate["todo"]):
        word = "aborted"
    else:
        word = "completed" if all(_done(worker) for worker in workers) else "incomplete"
    return document(word, plan, workers, [at_gate["reason"]] if at_gate["reason"] else [])


def document(
    word: str, plan: Mapping[str, Any], workers: Iterable[Mapping[str, Any]] = (), reasons: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a verdict document with the given word."""
    return {
        "schema": VERDICT_SCHEMA,
        "verdict": word,
        "rollout_id": plan.get("rollout_id"),
        "target": plan.get("target"),
        "reasons": list(reasons),
        "warnings": list(plan.get("warnings", [])),
        "window": plan.get("window"),
        "budget_percent": plan.get("budget_percent"),
        "waves": plan.get("waves", []),
        "workers": list(workers),
    }


def _verdict_worker(
    plan: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]], name: str,
) -> dict[str, Any]:
    planned = plan["workers"][name]
    known = outcomes.get(name) or {}
    word = _outcome_name(plan, outcomes, name)
    cause = known.get("cause") or ("host" if word == "unreachable" else None)
    return {
        "name": name,
        "from": planned["from"],
        "to": planned["to"] or plan["target"],
        "outcome": "not_attempted" if word == "pending" else word,
        "cause": cause,
        "reason": known.get("reason") or planned["reason"],
        "open_at_drain": known.get("open_at_drain"),
        "timings": known.get("timings", {}),
        "log": known.get("log", []),
    }


def _done(worker: Mapping[str, Any]) -> bool:
    return worker["outcome"] in GOOD


def not_done(doc: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each worker that keeps the exit code from being 0, why."""
    if doc["verdict"] == "planned":
        return {}
    return {worker["name"]: f"{worker['name']} is not at {doc['target']}: {worker['outcome']}"
            + (f" ({worker['reason']})" if worker["reason"] else "")
            for worker in doc["workers"] if not _done(worker)}


def verdict_lines(doc: Mapping[str, Any]) -> list[str]:
    """Return the verdict as lines for people: the verdict, a line a worker, the reasons."""
    workers = doc["workers"]
    good = sum(1 for worker in workers if _done(worker))
    lines = [f"{doc['verdict']}: {good} of {len(workers)} workers run {doc['target']} (rollout {doc['rollout_id']})"]
    for worker in workers:
        change = f"{worker['from'] or '?'} -> {worker['to']}"
        drained = "" if worker["open_at_drain"] is None else f", {worker['open_at_drain']} open at drain"
        blame = f" [{worker['cause']}]" if worker["cause"] else ""
        reason = f": {worker['reason']}" if worker["reason"] else ""
        lines.append(f"{worker['name']:<12} {worker['outcome']:<13} {change}{drained}{blame}{reason}")
    return lines + [f"why: {reason}" for reason in doc["reasons"]]


def progress_line(plan: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> str:
    """Return the one line that says what became of a worker, with its place in the rollout."""
    place = f"({plan['order'].index(name) + 1}/{len(plan['order'])})" if name in plan["order"] else ""
    good = result["outcome"] == "updated"
    seconds = sum(value for value in result.get("timings", {}).values() if isinstance(value, (int, float)))
    if good:
        open_tasks = result.get("open_at_drain")
        drained = "" if open_tasks is None else f", {open_tasks} tasks open when its drain began"
        return f"{name} updated {result['from'] or '?'} -> {result['to']} in {seconds:.1f} s{drained} {place}".rstrip()
    return f"{name} {result['outcome'].upper()} [{result['cause']}] {result['reason']} {place}".rstrip()


def fleet_lines(fleet: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the state of the fleet for people: a line a worker, then what is wrong, in words."""
    lines = [f"{'worker':<12} {'version':<10} {'state':<11} {'open':>5}  note"]
    versions: dict[str, list[str]] = {}
    for name, census in sorted(fleet.items()):
        worker = census.get("worker") or {}
        version = str((worker.get("instance") or {}).get("version") or "-")
        if worker:
            versions.setdefault(version, []).append(name)
        state = worker.get("state") or ("unreachable" if census.get("unreachable") else census.get("finding") or "?")
        tasks = (worker.get("tasks") or {}).get("open")
        lines.append(f"{name:<12} {version:<10} {state:<11} {'-' if tasks is None else tasks:>5}  "
                     f"{_note(census, worker)}".rstrip())
    if len(versions) > 1:
        parts = (f"{len(names)} on {version} ({', '.join(names)})" for version, names in sorted(versions.items()))
        lines.append(f"Mixed versions: {'; '.join(parts)}. Run rolling_update.yml again to converge.")
    elif versions:
        lines.append(f"All answering workers run {next(iter(versions))}.")
    silent = sorted(name for name, census in fleet.items() if not census.get("worker"))
    return lines + ([f"No answer from: {', '.join(silent)}."] if silent else [])


def _note(census: Mapping[str, Any], worker: Mapping[str, Any]) -> str:
    drain = worker.get("drain")
    if drain:
        return f"drained by {drain.get('owner')}: {drain.get('reason') or 'no reason given'}"
    failure = worker.get("failure") or {}
    return one_line(failure.get("message") or ("" if worker else census.get("message") or census.get("msg")))
