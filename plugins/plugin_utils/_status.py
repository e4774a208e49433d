# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""How a fleet is: one document of what its workers say, and the same as a table for a terminal. Pure functions.

A rollout under way is seen in the workers' records, so it can be followed from any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.module_utils._record import in_words
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import accepts, serving
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import SPENDS
from ansible_collections.solver.fleet.plugins.plugin_utils._names import listed, natural
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import minutes
from ansible_collections.solver.fleet.plugins.plugin_utils._roster import by_name
from ansible_collections.solver.fleet.plugins.plugin_utils._runs import COLUMNS, fold, run_lines, runs
from ansible_collections.solver.fleet.plugins.plugin_utils._verdict import FINE

Json = Mapping[str, Any]
Fleet = Mapping[str, Json]

SCHEMA = "solver.status/1"
LAST_RUNS = 5
# A row that is older than this says so: who keeps the others waiting makes their rows old.
OLD_S = 5.0
# Each column: its head, what it shows, and down to what width it gives way where the row would be too long.
_TABLE = (
    ("worker", "name", 12), ("version", "version", 8), ("pending", "pending", 8), ("state", "state", 11),
    ("open", "open", 4), ("oldest", "oldest", 6), ("held by", "held_by", 9), ("until", "held_until", 6),
    ("last", "last_outcome", 8))
_NUMBERS = ("open", "oldest")


def status(fleet: Fleet, now: float, dead: Collection[str] = ()) -> dict[str, Any]:
    """Return the status document. DEAD are the runs whose controller is proven dead, NOW is in seconds."""
    locks = _locks(fleet, dead)
    workers = [_worker(name, census) for name, census in by_name(fleet)]
    found = runs(fleet)
    versions: dict[str, list[str]] = {}
    for own in workers:
        if own["answers"]:
            versions.setdefault(own["version"] or "-", []).append(own["name"])
    return {
        "schema": SCHEMA, "at": _date(now),
        "fleet": {"workers": len(workers), "answering": sum(own["answers"] for own in workers),
                  "reached": sum(not own["unreachable"] for own in workers),
                  "serving": sum(own["serves"] for own in workers), "mixed": len(versions) > 1,
                  "versions": {version: versions[version] for version in sorted(versions, key=natural)}},
        "locks": locks, "rollout": _rollout(fleet, locks, now), "workers": workers, "history": found[:LAST_RUNS]}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- the lock and the rollout that holds it --------------------------------------------------------


def _locks(fleet: Fleet, dead: Collection[str]) -> list[dict[str, Any]]:
    """Return who holds which workers, or held them until the time was over and let go of none."""
    held: dict[str, dict[str, Any]] = {}
    for name, census in by_name(fleet):
        lock = (census.get("rollout") or {}).get("lock") or {}
        if lock and census.get("lock_state") in ("held", "expired"):
            own = held.setdefault(str(lock["run_id"]), {**_holder(lock), "state": "expired", "workers": []})
            own["workers"].append(name)
            own["renewed_at"] = max(str(own["renewed_at"]), str(lock["renewed_at"]))
            # One lock of the run that is fresh says that the run lives.
            own["state"] = "held" if "held" in (census["lock_state"], own["state"]) else "expired"
    for run, own in held.items():
        own["state"] = "dead" if run in dead else own["state"]
    return list(held.values())


def _holder(lock: Json) -> dict[str, Any]:
    return {**{name: lock.get(name) for name in (
        "run_id", "rollout_id", "user", "job", "reason", "acquired_at", "renewed_at")},
        "host": (lock.get("controller") or {}).get("host")}


def _rollout(fleet: Fleet, locks: Sequence[Json], now: float) -> dict[str, Any] | None:
    """Return the rollout under way, or the one that a dead controller left: how many of how many are done."""
    if not locks:
        return None
    lock = max(locks, key=lambda own: (own["state"] == "held", len(own["workers"])))
    records = {name: census.get("rollout") or {} for name, census in by_name(fleet)}
    of_it = {name: record["rollout"] for name, record in records.items()
             if record.get("rollout") and record["rollout"].get("id") == lock["rollout_id"]}
    done = [name for name, own in of_it.items() if own.get("outcome")]
    one: Json = next(iter(of_it.values()), {})
    asked = [record["request"] for name, record in records.items() if name in lock["workers"] and record.get("request")]
    return {
        "rollout_id": lock["rollout_id"], "run_id": lock["run_id"], "kind": one.get("kind"),
        "target": one.get("target"), "state": "running" if lock["state"] == "held" else lock["state"],
        "done": len(done), "of": len(of_it), "stage": _stage(of_it),
        "failed": [name for name in done if of_it[name].get("outcome") in SPENDS],
        "in_turn": [name for name, census in by_name(fleet) if _owner(census) == lock["rollout_id"]],
        "left_s": _left_s(lock, len(done), len(of_it), now), "request": asked[0] if asked else None}


def _stage(of_it: Mapping[str, Json]) -> dict[str, int] | None:
    """Return the first stage that is not over, or the last, and how many of its workers had their turn."""
    known = [own for own in of_it.values() if own.get("stage") and own.get("stages")]
    if not known:
        return None
    number = min((own["stage"] for own in known if not own.get("outcome")),
                 default=max(own["stage"] for own in known))
    inside = [own for own in known if own["stage"] == number]
    return {"number": number, "stages": max(own["stages"] for own in known), "workers": len(inside),
            "done": sum(bool(own.get("outcome")) for own in inside)}


def _owner(census: Json) -> Any:
    return ((census.get("worker") or {}).get("drain") or {}).get("owner")


def _left_s(lock: Json, done: int, size: int, now: float) -> float | None:
    """By what the rollout took until now; it is rough."""
    try:
        began = datetime.fromisoformat(str(lock["acquired_at"])).timestamp()
    except ValueError:
        return None
    return round(max(0.0, now - began) / done * (size - done)) if done else None


# -- a worker ------------------------------------------------------------------------------------


def _worker(name: str, census: Json) -> dict[str, Any]:
    worker: Json = census.get("worker") or {}
    drain, tasks = worker.get("drain") or {}, worker.get("tasks") or {}
    unreachable = bool(census.get("unreachable"))
    own = (census.get("rollout") or {}).get("rollout") or {}
    return {
        "name": name, "answers": bool(worker), "unreachable": unreachable,
        "serves": serving(worker) and accepts(worker),
        "version": (worker.get("instance") or {}).get("version"),
        "release": (worker.get("instance") or {}).get("release"), "pending": _pending(census, worker),
        "state": worker.get("state") or ("unreachable" if unreachable else census.get("finding") or "?"),
        "open": tasks.get("open"), "oldest_s": tasks.get("oldest_age_s"), "age_s": census.get("age_s"),
        "held_by": drain.get("owner"), "held_until": drain.get("lease_expires_at"),
        "held_why": drain.get("reason"), "last_outcome": own.get("outcome"), "notes": _notes(census, worker)}


def _pending(census: Json, worker: Json) -> str | None:
    """Return the release that the worker would run next: its next start, or what is staged for a rollout."""
    releases = census.get("releases") or {}
    running = (worker.get("instance") or {}).get("release")
    for link in ("current", "staged"):
        release = releases.get(link) or {}
        if release.get("id") and running and release["id"] != running:
            return str(release.get("version") or release["id"])
    return None


def _notes(census: Json, worker: Json) -> list[dict[str, str]]:
    """Return what is wrong or waits, in words; C(idle) is worth saying only while no rollout is under way."""
    failure = worker.get("failure") or worker.get("refusal") or {}
    drain = worker.get("drain") or {}
    age = census.get("age_s")
    fragile = one_line(census.get("service_problem") or census.get("release_problem"))
    said = {
        "drain": f"drained by {drain.get('owner')}: {drain.get('reason') or 'no reason given'}" if drain else "",
        "wrong": one_line(failure.get("message") or ("" if worker else census.get("message") or census.get("msg"))),
        "record": one_line(census.get("record_problem")),
        "fragile": f"would not survive a restart: {fragile}" if fragile else "",
        "slot": "serves from the slot of its standby; recover.yml brings it home" if census.get("in_slot") else "",
        "start": _next_start(census, worker), "idle": _waiting(census, worker),
        "age": f"answered {age:.0f} s ago" if worker and age is not None and age >= OLD_S else ""}
    return [{"kind": kind, "text": text} for kind, text in said.items() if text]


def _next_start(census: Json, worker: Json) -> str:
    linked = ((census.get("releases") or {}).get("current") or {}).get("id")
    running = (worker.get("instance") or {}).get("release")
    return f"its next start runs {linked}" if linked and running and linked != running else ""


def _waiting(census: Json, worker: Json) -> str:
    waiting = ((census.get("releases") or {}).get("staged") or {}).get("id")
    running = (worker.get("instance") or {}).get("release")
    if not waiting or waiting == running or worker.get("drain") or _next_start(census, worker):
        return ""
    return f"pending: {waiting} waits for rolling_update.yml"


# -- lines ---------------------------------------------------------------------------------------


def lines(doc: Json) -> list[str]:
    """Return a status document for people, in 80 columns: the table, what there is to say, and the last rollouts."""
    return [*table(doc), *(part for line in sentences(doc) for part in fold(line)),
            *(line for run in doc["history"] for line in run_lines(run))]


def sentences(doc: Json) -> list[str]:
    """Return what there is to say of the fleet: how it is, what is wrong, who holds the lock, what is under way."""
    running = (doc["rollout"] or {}).get("state") == "running"
    return [*_fleet_lines(doc, running), *_note_lines(doc, running), *_lock_lines(doc), *_rollout_lines(doc)]


def table(doc: Json) -> list[str]:
    """Return a line a worker, in columns as wide as they must be, 80 at most."""
    owner = (doc["rollout"] or {}).get("rollout_id")
    rows = [{key: head for head, key, _least in _TABLE}, *(_cells(own, owner) for own in doc["workers"])]
    widths = _widths({key: max(len(row[key]) for row in rows) for _head, key, _least in _TABLE})
    return [_line(row, widths) for row in rows]


def _widths(wanted: dict[str, int]) -> dict[str, int]:
    """Return the widths: where the row is too long, that which exceeds its least the most gives way."""
    excess = {key: wanted[key] - least for _head, key, least in _TABLE}
    while sum(wanted.values()) + len(wanted) - 1 > COLUMNS:
        key = max(excess, key=lambda each: excess[each])
        wanted[key] -= 1
        excess[key] -= 1
    return wanted


def _cells(own: Json, owner: str | None) -> dict[str, str]:
    oldest = own["oldest_s"]
    held = "rollout" if owner and own["held_by"] == owner else own["held_by"]
    return {
        "name": own["name"], "version": own["version"] or "-", "pending": own["pending"] or "-", "state": own["state"],
        "open": "-" if own["open"] is None else str(own["open"]),
        "oldest": "-" if oldest is None else minutes(oldest), "held_by": held or "-",
        "held_until": f"{own['held_until'][11:16]}Z" if own["held_until"] else "-",
        "last_outcome": (own["last_outcome"] or "-").replace("_", " ")}


def _line(row: Json, widths: Mapping[str, int]) -> str:
    cells = (f"{_cut(row[key], width, key):{'>' if key in _NUMBERS else '<'}{width}}" for key, width in widths.items())
    return " ".join(cells).rstrip()


def _cut(text: str, width: int, key: str) -> str:
    """Return what fits; names of one fleet differ at their end."""
    if len(text) <= width:
        return text
    return f"…{text[1 - width:]}" if key == "name" else f"{text[:width - 1]}…"


def _fleet_lines(doc: Json, running: bool) -> list[str]:
    fleet = doc["fleet"]
    out = [f"Serving: {fleet['serving']} of {fleet['workers']}."]
    if fleet["mixed"]:
        parts = "; ".join(f"{len(names)} on {version} ({listed(names)})"
                          for version, names in fleet["versions"].items())
        out.append(f"Mixed versions: {parts}." + ("" if running else " Run rolling_update.yml again to converge."))
    elif fleet["versions"]:
        out.append(f"All answering workers run {next(iter(fleet['versions']))}.")
    silent = [own["name"] for own in doc["workers"] if not own["answers"]]
    return out + ([f"No answer from: {', '.join(silent)}."] if silent else [])


def _note_lines(doc: Json, running: bool) -> list[str]:
    """Return what is to be said of single workers; what a rollout holds needs no word while it is at work."""
    owner = doc["rollout"]["rollout_id"] if running else None
    out = []
    for own in doc["workers"]:
        texts = [note["text"] for note in own["notes"]
                 if not (running and note["kind"] in ("idle", "start"))
                 and not (note["kind"] == "drain" and owner and own["held_by"] == owner)]
        out += [f"{own['name']}: {'; '.join(texts)}"] if texts else []
    return out


def _lock_lines(doc: Json) -> list[str]:
    return [_lock_line(lock) for lock in doc["locks"]] or ["No rollout holds the lock."]


def _lock_line(lock: Json) -> str:
    text = in_words({**lock, "controller": {"host": lock["host"]}}, what=listed(lock["workers"]))
    if lock["state"] == "expired":
        return f"{text[0].upper()}{text[1:]}; its time is over, so it holds nobody off."
    return f"{text[0].upper()}{text[1:]}."


def _rollout_lines(doc: Json) -> list[str]:
    own = doc["rollout"]
    if not own:
        return []
    if own["state"] != "running":
        left = f", in its turn were {listed(own['in_turn'])}" if own["in_turn"] else ""
        what = "Its controller is dead" if own["state"] == "dead" else "Its controller has fallen silent"
        return [f"{what}: {_progress(own)}{left}. Run the same command again to go on, or recover.yml "
                "to bring back what was left."]
    left = f", about {minutes(own['left_s'])} left" if own["left_s"] else ""
    turn = f"; in its turn: {listed(own['in_turn'])}" if own["in_turn"] else ""
    asked = own["request"]
    said = f"; {asked['by'] or 'somebody'} asked it to {asked['what']}" if asked else ""
    return [f"Under way: {own['kind'] or 'a rollout'}{_to(own)}, {_progress(own)}{left}{turn}{said}."]


def _to(own: Json) -> str:
    return f" to {own['target']}" if own["target"] else ""


def _progress(own: Json) -> str:
    failed = f", {len(own['failed'])} failed ({listed(own['failed'])})" if own["failed"] else ""
    stage = own["stage"]
    where = (f"stage {stage['number']} of {stage['stages']} ({stage['done']} of {stage['workers']}), "
             if stage and stage["stages"] > 1 else "")
    return f"{where}{own['done']} of {own['of']} workers had their turn{failed}"


# -- how it ends ---------------------------------------------------------------------------------


def problem(doc: Json, watched: Json | None = None) -> str:
    """Return why a look at the fleet is no success: nobody could be reached, or the rollout that was WATCHED failed."""
    if not doc["fleet"]["reached"]:
        return "no worker's host could be reached, so nothing is known; see the inventory, and the lines above"
    if not watched:
        return ""
    name = watched["rollout_id"]
    if (doc["rollout"] or {}).get("run_id") == watched["run_id"]:
        return f"{name} did not end, its controller is gone; run the same command again to go on, or recover.yml"
    verdict = next((run["verdict"] for run in doc["history"] if run["run_id"] == watched["run_id"]), None)
    if verdict in FINE:
        return ""
    return f"{name} ended: {str(verdict).replace('_', ' ') if verdict else 'no worker has its verdict'}"
