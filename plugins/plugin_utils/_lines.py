# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Lines for people: the progress of a rollout, and the state of a fleet. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._record import in_words
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_locks import holder_of
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import by_name


def progress_line(name: str, result: Mapping[str, Any], done: int, of: int) -> str:
    """Return the one line that says what became of a worker, and how far the rollout is."""
    place = f"({done} of {of} done)"
    good = result["outcome"] == "updated"
    seconds = sum(value for value in result.get("timings", {}).values() if isinstance(value, (int, float)))
    if good:
        open_tasks = result.get("open_at_drain")
        drained = "" if open_tasks is None else f", {open_tasks} tasks open when its drain began"
        return f"{name} updated {result['from'] or '?'} -> {result['to']} in {seconds:.1f} s{drained} {place}"
    return f"{name} {result['outcome'].upper()} [{result['cause']}] {result['reason']} {place}"


def fleet_lines(fleet: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the state of the fleet for people: a line a worker, then what is wrong, in words."""
    lines = [f"{'worker':<12} {'version':<10} {'state':<11} {'open':>5} {'age':>6}  note"]
    versions: dict[str, list[str]] = {}
    for name, census in by_name(fleet):
        worker = census.get("worker") or {}
        version = str((worker.get("instance") or {}).get("version") or "-")
        if worker:
            versions.setdefault(version, []).append(name)
        state = worker.get("state") or ("unreachable" if census.get("unreachable") else census.get("finding") or "?")
        tasks = (worker.get("tasks") or {}).get("open")
        lines.append(f"{name:<12} {version:<10} {state:<11} {'-' if tasks is None else tasks:>5} {_age(census):>6}  "
                     f"{_note(census, worker)}".rstrip())
    if len(versions) > 1:
        parts = (f"{len(names)} on {version} ({', '.join(names)})" for version, names in sorted(versions.items()))
        lines.append(f"Mixed versions: {'; '.join(parts)}. Run rolling_update.yml again to converge.")
    elif versions:
        lines.append(f"All answering workers run {next(iter(versions))}.")
    silent = [name for name, census in by_name(fleet) if not census.get("worker")]
    lines += [f"No answer from: {', '.join(silent)}."] if silent else []
    return lines + lock_lines(fleet) + history_lines(fleet)


def _age(census: Mapping[str, Any]) -> str:
    """Return how long ago the worker answered: who keeps the others waiting makes their rows old."""
    age = census.get("age_s")
    return "-" if age is None or not census.get("worker") else f"{age:.0f} s"


def lock_lines(fleet: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return who holds the rollout's lock on which workers."""
    held: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for name, census in by_name(fleet):
        holder = holder_of(census)
        if holder:
            held.setdefault(str(holder.get("run_id")), (holder, []))[1].append(name)
    return [_lock_line(holder, names) for holder, names in held.values()] or ["No rollout holds the lock."]


def _lock_line(holder: Mapping[str, Any], names: list[str]) -> str:
    text = in_words(holder, what=", ".join(names))
    return f"{text[0].upper()}{text[1:]}."


def history_lines(fleet: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the runs that the workers remember, newest first; a record alone knows of one that has not ended."""
    ended: dict[str, Mapping[str, Any]] = {}
    records: dict[str, Mapping[str, Any]] = {}
    for census in fleet.values():
        ended.update({str(head["run_id"]): head for head in census.get("history") or []})
        own = (census.get("rollout") or {}).get("rollout") or {}
        if own.get("id"):
            records[str(own["id"])] = own
    told = {str(head["rollout_id"]) for head in ended.values()}
    runs = [*ended.values(), *({**own, "rollout_id": name} for name, own in records.items() if name not in told)]
    runs.sort(key=lambda run: str(run.get("started_at") or ""), reverse=True)
    return [_history_line(run) for run in runs]


def _history_line(run: Mapping[str, Any]) -> str:
    why = f": {one_line(run['reasons'][0])}" if run.get("reasons") else ""
    return (f"Rollout {run['rollout_id']}: {run.get('kind')} to {run.get('target')}, begun {run.get('started_at')}, "
            f"{run.get('verdict') or 'not ended'}{why}.")


def _note(census: Mapping[str, Any], worker: Mapping[str, Any]) -> str:
    drain = worker.get("drain")
    if drain:
        held = f"drained by {drain.get('owner')}: {drain.get('reason') or 'no reason given'}"
        return "; ".join(part for part in (held, _fragile(census)) if part)
    failure = worker.get("failure") or worker.get("refusal") or {}
    wrong = one_line(failure.get("message") or ("" if worker else census.get("message") or census.get("msg")))
    return "; ".join(part for part in (wrong, _fragile(census), _pending(census, worker)) if part)


def _fragile(census: Mapping[str, Any]) -> str:
    problem = one_line(census.get("service_problem") or census.get("release_problem"))
    return f"would not survive a restart: {problem}" if problem else ""


def _pending(census: Mapping[str, Any], worker: Mapping[str, Any]) -> str:
    """Say that the next start would run something else than what runs now."""
    releases = census.get("releases") or {}
    linked, waiting = (releases.get("current") or {}).get("id"), (releases.get("staged") or {}).get("id")
    running = (worker.get("instance") or {}).get("release")
    if linked and running and linked != running:
        return f"its next start runs {linked}"
    return f"pending: {waiting} waits for rolling_update.yml" if waiting and waiting != running else ""
