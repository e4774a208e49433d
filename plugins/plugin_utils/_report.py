# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""The report of a rollout: one HTML page from a verdict document. Pure functions; the template lies beside this file.

The template escapes every text. Numbers that become part of a drawing are made here, and are numbers.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import jinja2

from ansible_collections.solver.fleet.plugins.plugin_utils._gate import GOOD, SPENDS
from ansible_collections.solver.fleet.plugins.plugin_utils._names import natural
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SETTINGS
from ansible_collections.solver.fleet.plugins.plugin_utils._shape import MARK

Json = Mapping[str, Any]
Doc = Mapping[str, Any]

WIDTH, HEIGHT = 1000.0, 100.0
# Step by step: what the reader is told, and the colour.
STEPS = {
    "drain": ("drains", "drain"), "switch": ("restarts", "restart"), "verify": ("solves its probe", "probe"),
    "resume": ("goes back into service", "serve"), "soak": ("serves, watched", "soak"),
    "give_back": ("goes back into service", "serve"), "revert_drain": ("drains to go back", "drain"),
    "revert": ("goes back", "back"), "revert_verify": ("is looked at", "probe"),
    "revert_resume": ("goes back into service", "serve"), "raise": ("gets a standby", "restart"),
    "serve": ("is looked at", "probe"), "settle": ("comes home from its slot", "soak"),
    "keep": ("keeps the old release as a standby", "soak"), "drop": ("loses its standby", "back")}
LEGEND = (("drain", "drains"), ("restart", "restarts"), ("probe", "is verified"), ("serve", "goes back into service"),
          ("soak", "serves, watched"), ("back", "is reverted"), ("bad", "failed here"))
# A bar must be seen, however short its step was.
LEAST_WIDTH = 3.0
MOST_COLOURS = 6
LONGEST_WAITS = 10
# However much failed, the page opens on a phone: so many failures in full, so many characters of logs in all, and the
# beginning of each reason in the table. The verdict has the rest.
MOST_FAILURES = 50
LOG_CHARS = 150_000
REASON_CHARS = 160
MOST_STEPS = 40
# Which mood the page opens in.
_MOOD = {"completed": "good", "planned": "good", "paused": "warn", "inconclusive": "warn", "interrupted": "warn",
         "incomplete": "warn", "awaiting_promotion": "warn"}
_PLAYBOOK = {"update": "rolling_update", "rollback": "rollback", "recover": "recover"}
_NEXT = {
    "release": "Try the release on one worker; its log says more.",
    "drain": "See who holds it with solver.fleet.status; give it more time with solver_drain_timeout.",
    "host": "Look at the machine.", "hook": "Mend the task of your own that failed.",
    "unknown": "Read the output of the run around this worker."}
# With these a worker leaves service, with those it comes back.
_LEAVES, _RETURNS = ("drain", "revert_drain"), ("resume", "give_back", "revert_resume")


def _judged(doc: Doc) -> list[str]:
    judged = doc.get("judgement") or {}
    return [f"The canaries: {judged['word']}; {judged.get('reason') or ''}"] if judged else []


def page(document: Doc, template: str) -> str:
    """Return the page."""
    made = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(template)
    text = made.render(**facts(document))
    # What is no character cannot be written, and what turns the direction of a text may forge another one.
    return "".join(sign if sign.isprintable() or sign == "\n" else MARK for sign in text)


def facts(doc: Doc) -> dict[str, Any]:
    """Return all that the page shows, in the words in which it shows it."""
    workers = sorted(doc.get("workers") or [], key=lambda worker: natural(worker["name"]))
    samples = doc.get("samples") or []
    length, failed = _length(workers, samples), failures(workers)
    return {
        "title": f"{doc['verdict'].replace('_', ' ')}: {doc.get('kind') or 'rollout'} to {doc.get('target') or '?'}",
        "mood": _MOOD.get(doc["verdict"], "bad"),
        "summary": summary(doc, workers, samples), "reasons": [*(doc.get("reasons") or []), *_judged(doc)],
        "warnings": doc.get("warnings") or [], "failures": failed[:MOST_FAILURES],
        "not_shown": max(0, len(failed) - MOST_FAILURES), "legend": LEGEND,
        "rows": [_row(worker, length) for worker in workers], "timed": any(own.get("steps") for own in workers),
        "ticks": ticks(length), "charts": charts(doc, samples, length), "workers": [_cells(own) for own in workers],
        "waits": waits(doc.get("waits") or []), "settings": settings_changed(doc.get("settings") or {}),
        "settings_known": bool(doc.get("settings")),
        "command": command(doc), "audit": doc.get("audit") or {}, "width": WIDTH, "height": HEIGHT}


def _length(workers: Iterable[Json], samples: Sequence[Json]) -> float:
    ends = [step["to_s"] for worker in workers for step in worker.get("steps") or []]
    return float(max([1.0, *ends, *(sample["at_s"] for sample in samples)]))


# -- words -------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return so many seconds as people say them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def took_s(doc: Json) -> float | None:
    """Return how long a run took, by its own dates; nothing where it has not ended."""
    try:
        began, ended = (datetime.fromisoformat(str(doc.get(name))) for name in ("started_at", "ended_at"))
    except (ValueError, TypeError):
        return None
    seconds: float = ended.timestamp() - began.timestamp()
    return max(0.0, seconds)


def by_whom(who: Json | None) -> str:
    """Return who ran a rollout."""
    if not who:
        return ""
    name = f"AWX job {who['job']}" if who.get("job") else str(who.get("user") or "?")
    return name + (f" on {who['host']}" if who.get("host") else "")


def summary(doc: Doc, workers: Sequence[Json], samples: Sequence[Json]) -> list[tuple[str, str]]:
    """Return what is said first, as pairs; what is not known is left out."""
    spent = doc["spent"] if "spent" in doc else [own["name"] for own in workers if own["outcome"] in SPENDS]
    took, estimate = took_s(doc), doc.get("estimate_s")
    sources = Counter(str(worker.get("from") or "?") for worker in workers)
    good = sum(1 for worker in workers if worker["outcome"] in GOOD)
    rows = [
        ("Workers", f"{good} of {len(workers)} at the target" if workers else ""),
        ("From", ", ".join(f"{version} ({number})" for version, number in sorted(sources.items()))),
        ("To", str(doc.get("target") or "")),
        ("Began", str(doc.get("started_at") or "")), ("Ended", str(doc.get("ended_at") or "not ended")),
        ("Took", "" if took is None else duration(took) + (f", {duration(estimate)} were planned" if estimate else "")),
        ("By", by_whom(doc.get("who"))), ("Why", str((doc.get("settings") or {}).get("solver_reason") or "")),
        ("Out of service at once", f"at most {doc['window']}" if doc.get("window") else ""),
        ("Served at least", _served(doc, samples)), ("Failure budget", _budget(doc, spent, len(workers))),
        ("Rollout", str(doc.get("rollout_id") or "")), ("Run", str(doc.get("run_id") or ""))]
    return [(label, value) for label, value in rows if value]


def _served(doc: Doc, samples: Sequence[Json]) -> str:
    if not samples:
        return ""
    least = min(sample["serving"] for sample in samples)
    return f"{least}, the floor was {doc['floor']}" if doc.get("floor") is not None else str(least)


def _budget(doc: Doc, spent: Sequence[str], fleet: int) -> str:
    if doc.get("budget_percent") is None or not fleet:
        return ""
    most = f"up to {doc['tolerated']} might ({doc['budget_percent']:g} %)" if doc.get("tolerated") is not None else \
        f"{doc['budget_percent']:g} % might"
    names = f" ({', '.join(spent[:20])}{' and more' if len(spent) > 20 else ''})" if spent else ""
    return f"{len(spent)} of {fleet} workers failed{names}, {most}"


def failures(workers: Iterable[Json]) -> list[dict[str, Any]]:
    """Return the workers that did not get where they were to go, and were tried, with what to do next."""
    quiet = (*GOOD, "not_attempted", "excluded", "rolled_back")
    out, left = [], LOG_CHARS
    for own in workers:
        if own["outcome"] in quiet:
            continue
        log = own.get("log") or []
        size = sum(map(len, log))
        log = log if size <= left else []
        left -= size if log else 0
        out.append({
            "name": own["name"], "outcome": own["outcome"].replace("_", " "), "cause": own.get("cause") or "",
            "reason": own.get("reason") or "", "log": log, "next": _NEXT.get(str(own.get("cause")), "")})
    return out


def waits(found: Iterable[Json]) -> list[tuple[str, str, str, str]]:
    """Return the longest waits: who, how long, for whom, and why."""
    longest = sorted(found, key=lambda wait: wait["from_s"] - wait["to_s"])[:LONGEST_WAITS]
    return [(str(wait.get("worker") or "the rollout"), duration(wait["to_s"] - wait["from_s"]),
             ", ".join(wait.get("for") or []) or "-", wait["reason"]) for wait in longest]


def settings_changed(settings: Json) -> list[tuple[str, str, str]]:
    """Return the settings that are not as they are by default: name, value, default."""
    return [(name, shown(value), shown(SETTINGS[name].default)) for name, value in sorted(settings.items())
            if name in SETTINGS and value != SETTINGS[name].default]


def shown(value: Any) -> str:
    """Return a setting as people write it."""
    if value in (None, "", []):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def command(doc: Doc) -> str:
    """Return the command that would do the same again."""
    changed = {name: value for name, value in (doc.get("settings") or {}).items()
               if name in SETTINGS and value != SETTINGS[name].default}
    if doc.get("kind") == "update" and doc.get("target"):
        changed.setdefault("solver_version", doc["target"])
    extra = f" -e {shlex.quote(json.dumps(changed, ensure_ascii=False, sort_keys=True))}" if changed else ""
    return f"ansible-playbook solver.fleet.{_PLAYBOOK.get(str(doc.get('kind')), 'rolling_update')} -i INVENTORY{extra}"


# -- the time line -----------------------------------------------------------------------------


def _row(worker: Json, length: float) -> dict[str, Any]:
    steps = [step for step in (worker.get("steps") or [])[:MOST_STEPS]
             if step["step"].removeprefix("back_") in STEPS]
    said = "; ".join(f"{_words(step)} {step['from_s']:.0f} to {step['to_s']:.0f} s{'' if step['ok'] else ', failed'}"
                     for step in steps)
    outcome = worker["outcome"].replace("_", " ")
    return {"name": worker["name"], "outcome": outcome, "good": worker["outcome"] in GOOD,
            "bad": worker["outcome"] in SPENDS | {"rollback_failed"}, "bars": [_bar(step, length) for step in steps],
            "said": f"{worker['name']}, {outcome}: {said or 'no steps'}"}


def _words(step: Json) -> str:
    return STEPS[step["step"].removeprefix("back_")][0]


def _bar(step: Json, length: float) -> dict[str, Any]:
    x = step["from_s"] / length * WIDTH
    width = max(LEAST_WIDTH, (step["to_s"] - step["from_s"]) / length * WIDTH)
    colour = STEPS[step["step"].removeprefix("back_")][1] + ("" if step["ok"] else " bad")
    return {"x": _n(min(x, WIDTH - LEAST_WIDTH)), "width": _n(width), "colour": colour}


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def ticks(length: float) -> list[str]:
    """Return the words below a drawing: its beginning, its middle and its end."""
    return ["0", duration(length / 2), duration(length)]


# -- the curves --------------------------------------------------------------------------------


def charts(doc: Doc, samples: Sequence[Json], length: float) -> list[dict[str, Any]]:
    """Return the drawings over time; none where nobody counted."""
    if len(samples) < 2:
        return []
    return [_serving_chart(doc, samples, length), _versions_chart(samples, length), _open_chart(samples, length)]


def _serving_chart(doc: Doc, samples: Sequence[Json], length: float) -> dict[str, Any]:
    fleet = max(len(doc.get("workers") or []), 1, *(sample["serving"] for sample in samples))
    floor, values = doc.get("floor"), [sample["serving"] for sample in samples]
    said = f"{values[0]} served at the beginning, {min(values)} at least, {values[-1]} at the end"
    line = [] if floor is None else [{"y": _n(HEIGHT - floor / fleet * HEIGHT), "text": f"floor {floor}"}]
    return {"id": "serving", "title": "Workers that served", "top": fleet, "lines": line,
            "said": said + (f"; the floor was {floor}." if floor is not None else "."),
            "areas": [{"colour": "serves", "label": "serve",
                       "path": _area(samples, length, fleet, lambda _one: 0, lambda one: int(one["serving"]))}]}


def _versions_chart(samples: Sequence[Json], length: float) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for sample in samples:
        totals.update(sample["versions"])
    names = sorted((version for version, _number in totals.most_common(MOST_COLOURS)), key=natural)
    fleet = max([1, *(sum(sample["versions"].values()) for sample in samples)])
    areas = []
    for place, version in enumerate(names):
        below = names[:place]
        areas.append({"colour": f"v{place}", "label": version, "path": _area(
            samples, length, fleet, partial(_running, below), partial(_running, [*below, version]))})
    first, last = (_shares(one["versions"]) for one in (samples[0], samples[-1]))
    return {"id": "versions", "title": "What the workers ran", "top": fleet, "lines": [],
            "said": f"At the beginning {first}; at the end {last}.", "areas": areas}


def _running(versions: Sequence[str], sample: Json) -> int:
    return sum(sample["versions"].get(version, 0) for version in versions)


def _shares(versions: Json) -> str:
    return ", ".join(f"{number} on {version}" for version, number in sorted(versions.items())) or "nobody"


def _open_chart(samples: Sequence[Json], length: float) -> dict[str, Any]:
    most = max(1, *(sample["open"] for sample in samples))
    return {"id": "open", "title": "Open tasks that a drain waited for", "top": most, "lines": [],
            "said": f"At most {max(sample['open'] for sample in samples)} at once.",
            "areas": [{"colour": "open", "label": "open in drains",
                       "path": _area(samples, length, most, lambda _one: 0, lambda one: int(one["open"]))}]}


def _area(samples: Sequence[Json], length: float, top: int, low: Callable[[Json], int],
          high: Callable[[Json], int]) -> str:
    """Return the path of an area between two curves that go in steps: a count holds until the next one."""
    upper, lower = _steps(samples, length, top, high), _steps(samples, length, top, low)
    points = [*upper, *reversed(lower)]
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points) + "Z"


def _steps(samples: Sequence[Json], length: float, top: int, value: Callable[[Json], int]) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for sample in samples:
        x, y = sample["at_s"] / length * WIDTH, HEIGHT - value(sample) / top * HEIGHT
        if out and out[-1][1] == y:
            continue
        out += [(x, out[-1][1]), (x, y)] if out else [(x, y)]
    return [*out, (WIDTH, out[-1][1])]


# -- the table ---------------------------------------------------------------------------------


def _cells(worker: Json) -> dict[str, Any]:
    timings = worker.get("timings") or {}
    steps = worker.get("steps") or []
    drain = sum(value for name, value in timings.items() if name in ("drain", "back_drain"))
    away = _away_s(steps)
    return {"name": worker["name"], "from": worker.get("from") or "-", "to": worker.get("to") or "-",
            "outcome": worker["outcome"].replace("_", " "),
            "open": "-" if worker.get("open_at_drain") is None else worker["open_at_drain"],
            "drain": duration(drain) if drain else "-", "away": duration(away) if away else "-",
            "runs": worker.get("runs") or "-", "reason": _short(worker.get("reason") or "")}


def _away_s(steps: Iterable[Json]) -> float:
    """Return how long a worker was out of service, with what lay between its steps; to its last one if for good."""
    away, since, at = 0.0, None, 0.0
    for step in steps:
        kind, at = step["step"].removeprefix("back_"), float(step["to_s"])
        if kind in _LEAVES and since is None:
            since = float(step["from_s"])
        elif kind in _RETURNS and step["ok"] and since is not None:
            away, since = away + at - since, None
    return away if since is None else away + at - since


def _short(text: str) -> str:
    return text if len(text) <= REASON_CHARS else text[:REASON_CHARS - 1] + "…"
