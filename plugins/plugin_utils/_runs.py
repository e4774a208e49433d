# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The rollouts that a fleet's workers remember, as data and as lines for people. Pure functions."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._report import by_whom, duration, settings_changed, took_s
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import document, verdict_lines

Json = Mapping[str, Any]
Fleet = Mapping[str, Json]
COLUMNS = 80
NO_VERDICT = ("it has no verdict: it is under way, or its controller died; this is what the workers' records say, "
              "without times")


def runs(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the runs, newest first; a record alone knows of one that has not ended, and has no C(run_id)."""
    heads: dict[str, list[tuple[str, Json]]] = {}
    begun: dict[str, dict[str, Any]] = {}
    for name in in_order(fleet):
        for head in fleet[name].get("history") or []:
            heads.setdefault(str(head["run_id"]), []).append((name, head))
        record = fleet[name].get("rollout") or {}
        if (record.get("rollout") or {}).get("id"):
            _remember(begun, record)
    ended = {run: _agreed(kept) for run, kept in heads.items()}
    told = {str(run["rollout_id"]) for run in ended.values()}
    found = [*ended.values(), *(run for rollout, run in begun.items() if rollout not in told)]
    return sorted((_whole(run) for run in found), key=lambda run: str(run["started_at"] or ""), reverse=True)


def _agreed(heads: Sequence[tuple[str, Json]]) -> dict[str, Any]:
    """Return a run as most of those that keep it tell it: all were given the same, so who differs was changed."""
    word = Counter(head.get("verdict") for _name, head in heads).most_common(1)[0][0]
    agree = [(name, head) for name, head in heads if head.get("verdict") == word]
    return {**agree[0][1], "kept_by": [name for name, _head in agree]}


def _remember(begun: dict[str, dict[str, Any]], record: Json) -> None:
    own, lock = record["rollout"], record.get("lock") or {}
    ours = lock.get("rollout_id") == own["id"]
    who = {"user": lock.get("user"), "job": lock.get("job"), "host": (lock.get("controller") or {}).get("host")}
    run = begun.setdefault(str(own["id"]), {**own, "rollout_id": own["id"], "from": [], "who": who if ours else None})
    version = (own.get("from") or {}).get("version")
    if version and version not in run["from"]:
        run["from"].append(version)


def _whole(run: Json) -> dict[str, Any]:
    return {**{name: run.get(name) for name in (
        "rollout_id", "run_id", "kind", "target", "verdict", "started_at", "ended_at", "who", "reason")},
        "from": in_order(run.get("from") or []), "reasons": list(run.get("reasons") or []),
        "kept_by": run.get("kept_by") or []}


def chosen(found: Iterable[Json], wanted: str) -> Json | None:
    """Return the newest run of the rollout, or with the run's id, that ended; of any where nothing is WANTED."""
    fitting = [run for run in found if not wanted or wanted in (run["rollout_id"], run["run_id"])]
    return next((run for run in fitting if run["run_id"]), next(iter(fitting), None))


def unended(run: Json, fleet: Fleet) -> dict[str, Any]:
    """Return a rollout that has no verdict as if it had one: as far as the workers' records know it."""
    rollout = run["rollout_id"]
    records = {name: fleet[name].get("rollout") or {} for name in in_order(fleet)}
    of_it = {name: record["rollout"] for name, record in records.items()
             if (record.get("rollout") or {}).get("id") == rollout}
    locks = [record["lock"] for record in records.values() if (record.get("lock") or {}).get("rollout_id") == rollout]
    stages: dict[int, list[str]] = {}
    for name, own in of_it.items():
        stages.setdefault(own.get("stage") or 0, []).append(name)
    plan = {**run, "run_id": locks[0]["run_id"] if locks else None,
            "strategy": next((own.get("strategy") for own in of_it.values()), None),
            "stages": [{"workers": stages[number]} for number in sorted(stages)]}
    rows = [_row(name, fleet[name], of_it.get(name), run) for name in records]
    return document("interrupted", plan, rows, [NO_VERDICT])


def _row(name: str, census: Json, own: Json | None, run: Json) -> dict[str, Any]:
    worker: Json = census.get("worker") or {}
    ends = {end: (own or {}).get(end) or {} for end in ("from", "to")}
    word, reason = _became(census, own, (worker.get("drain") or {}).get("owner") == run["rollout_id"])
    return {
        "name": name, "from": ends["from"].get("version"), "to": ends["to"].get("version") or run["target"],
        "release": ends["to"].get("release"), "outcome": word, "cause": (own or {}).get("cause"), "reason": reason,
        "open_at_drain": None, "timings": {}, "totals": {"before": None, "after": None},
        "runs": (worker.get("instance") or {}).get("version"), "log": [], "steps": []}


def _became(census: Json, own: Json | None, in_turn: bool) -> tuple[str, str]:
    if census.get("unreachable"):
        return "unreachable", one_line(census.get("msg"))
    if own and own.get("outcome"):
        return str(own["outcome"]), one_line(own.get("outcome_reason"))
    if in_turn:
        return "unknown", "it was in its turn, and is still drained"
    return "not_attempted", "" if own else "its record says nothing of this rollout"


# -- lines ---------------------------------------------------------------------------------------


def history_lines(found: Iterable[Json]) -> list[str]:
    """Return two lines or more for each run: what it was, and who ran it why."""
    lines = [line for run in found for line in run_lines(run)]
    return lines or ["No worker remembers a rollout."]


def run_lines(run: Json) -> list[str]:
    """Return the lines of one run."""
    took = took_s(run)
    move = f"{', '.join(run['from'])} -> {run['target']}" if run["from"] else f"to {run['target']}"
    word, when = str(run["verdict"] or "not ended").replace("_", " "), str(run["started_at"] or "?")[:16]
    first = f"{when.replace('T', ' ')}  {run['kind']} {move}: {word}"
    first += "" if took is None else f" in {duration(took)}"
    who, why = by_whom(run["who"]), run["reason"]
    rest = str(run["rollout_id"]) + (f" of {who}" if who else "") + (f" ({one_line(why)})" if why else "")
    rest += f": {one_line(run['reasons'][0])}" if run["reasons"] else ""
    return [*fold(first), *fold(rest, "  ")]


def fold(text: str, indent: str = "") -> list[str]:
    """Return a text in lines that fit a terminal; the second and those behind it are indented."""
    return textwrap.wrap(text, COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ",
                         break_on_hyphens=False) or [indent]


def shown_lines(doc: Json) -> list[str]:
    """Return a kept verdict for people: who and when, what the screen said at its end, and the settings."""
    took, who = took_s(doc), by_whom(doc.get("who"))
    head = [f"began: {doc['started_at']}" + ("" if took is None else f", took {duration(took)}")]
    head += [f"by: {who}"] if who else []
    changed = [f"{name}: {value}" for name, value, _default in settings_changed(doc["settings"])]
    return [*verdict_lines(doc), *head, *changed]
