# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What happened when: the steps of each worker, how many served, and who was waited for, from the events of a run.

Pure functions. All times are seconds since the run began, by the controller's steady clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import serving
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Census, Plan

Event = Mapping[str, Any]
Json = dict[str, Any]

# A curve of more points than a screen has says no more.
MOST_SAMPLES = 400
# The longest waits; a shorter one than this is the time of a look.
MOST_WAITS = 200
SHORTEST_WAIT_S = 1.0
# The steps after which a worker is back in service, and what it runs after which.
_SERVES_AFTER = ("resume", "give_back", "revert_resume")
_MOVES = {"switch": "to", "revert": "back_version"}


@dataclass
class _Turn:
    """A worker that is at it: where its next step began, and how the present one has begun."""

    at: float
    begun: float | None = None


@dataclass
class Story:
    """What is told of a run. C(changes) are the facts of the curves: when, which curve, whose, and what."""

    zero: float = 0.0
    end: float = 0.0
    steps: dict[str, list[Json]] = field(default_factory=dict)
    waits: list[Json] = field(default_factory=list)
    changes: list[tuple[float, str, str, Any]] = field(default_factory=list)
    turns: dict[str, _Turn] = field(default_factory=dict)
    waiting: dict[str, tuple[float, str]] = field(default_factory=dict)
    left: tuple[float, str] = (-1.0, "")


def tell(plan: Plan, events: Iterable[Event], final: Mapping[str, Census] | None = None) -> Json:
    """Return C(steps) by worker, C(samples) and C(waits), as the verdict has them."""
    story = Story()
    for event in events:
        story.zero = story.zero or float(event["clock"])
        story.end = max(story.end, float(event["clock"]) - story.zero)
        heard = _HEARD.get(event["event"])
        if heard:
            heard(story, plan, event, float(event["clock"]) - story.zero)
    for name, census in (final or {}).items():
        worker: Mapping[str, Any] = census.get("worker") or {}
        story.changes.append((story.end, "serves", name, serving(worker)))
        if worker:
            story.changes.append((story.end, "runs", name, worker["instance"]["version"]))
    waits = sorted(story.waits, key=lambda wait: wait["from_s"] - wait["to_s"])[:MOST_WAITS]
    return {"steps": story.steps, "samples": thinned(_samples(plan, story)),
            "waits": sorted(waits, key=lambda wait: wait["from_s"])}


# -- the events --------------------------------------------------------------------------------


def _waiting(story: Story, _plan: Plan, event: Event, at: float) -> None:
    who, why = str(event.get("worker") or ""), one_line(event["reason"])
    since, before = story.waiting.get(who, (at, why))
    if before != why:
        _waited(story, who, at)
        since = at
    story.waiting[who] = (since, why)


def _waited(story: Story, who: str, at: float) -> None:
    since, why = story.waiting.pop(who, (at, ""))
    if at - since >= SHORTEST_WAIT_S:
        # Whoever gave its place free last is the one that was waited for; of any other wait the reason says it.
        gave = [story.left[1]] if story.left[0] >= since else []
        story.waits.append({
            "worker": who or None, "from_s": _round(since), "to_s": _round(at), "reason": why, "for": gave})


def _bake(story: Story, _plan: Plan, _event: Event, at: float) -> None:
    story.waiting.setdefault("", (at, "the canaries were compared with the others"))


def _goes_on(story: Story, _plan: Plan, _event: Event, at: float) -> None:
    _waited(story, "", at)


def _admitted(story: Story, _plan: Plan, event: Event, at: float) -> None:
    _waited(story, event["worker"], at)
    story.turns[event["worker"]] = _Turn(at)


def _program_begun(story: Story, _plan: Plan, event: Event, at: float) -> None:
    story.turns.setdefault(event["worker"], _Turn(at)).at = at


def _progress(story: Story, _plan: Plan, event: Event, at: float) -> None:
    turn = story.turns.setdefault(event["worker"], _Turn(at))
    _begin(story, turn, event, at)
    _count(story, event, at)


def _begin(story: Story, turn: _Turn, event: Event, at: float) -> float:
    """Return when the step began: so long before its end as it took, and not before the step in front of it ended."""
    ended = max(turn.at, at - float(event.get("ago_s") or 0.0))
    if turn.begun is None:
        took = event.get("took_s")
        turn.begun = turn.at if took is None else max(turn.at, ended - float(took))
        if event["step"] in ("drain", "revert_drain"):
            story.changes.append((turn.begun, "serves", event["worker"], False))
            if event.get("open_at_drain") is not None:
                story.changes.append((turn.begun, "open", event["worker"], event["open_at_drain"]))
    return ended


def _count(story: Story, event: Event, at: float) -> None:
    open_tasks = (event.get("remaining") or {}).get("open")
    if open_tasks is not None:
        story.changes.append((at, "open", event["worker"], open_tasks))


def _step_ended(story: Story, plan: Plan, event: Event, at: float) -> None:
    name, step = event["worker"], event["step"]
    turn = story.turns.setdefault(name, _Turn(at))
    ended = _begin(story, turn, event, at)
    back = event.get("part") == "back"
    story.steps.setdefault(name, []).append({
        "step": f"back_{step}" if back else step, "from_s": _round(turn.begun or 0.0), "to_s": _round(ended),
        "ok": bool(event["ok"])})
    turn.at, turn.begun = ended, None
    if event["ok"]:
        _moved(story, (plan["workers"].get(name) or {}) if step in _MOVES else {}, event, ended)
    if step in ("drain", "revert_drain"):
        story.changes.append((ended, "open", name, 0))


def _moved(story: Story, planned: Mapping[str, Any], event: Event, at: float) -> None:
    name, step = event["worker"], event["step"]
    if step in _SERVES_AFTER:
        story.changes.append((at, "serves", name, True))
        story.left = (at, name)
    if planned:
        end = "back_version" if event.get("part") == "back" else _MOVES[step]
        story.changes.append((at, "runs", name, planned[end]))


def _seen(story: Story, _plan: Plan, event: Event, at: float) -> None:
    story.changes.append((at, "serves", event["worker"], bool(event["serves"])))


def _outcome(story: Story, _plan: Plan, event: Event, at: float) -> None:
    story.left = (at, event["worker"])


_HEARD: dict[str, Callable[[Story, Plan, Event, float], None]] = {
    "waiting": _waiting, "planned": _goes_on, "bake": _bake, "judged": _goes_on, "admitted": _admitted,
    "program_begun": _program_begun, "progress": _progress, "step_ended": _step_ended, "seen": _seen,
    "outcome": _outcome}


# -- the curves --------------------------------------------------------------------------------


def _samples(plan: Plan, story: Story) -> list[Json]:
    """Return how many served, what they ran, and how many tasks were open in drains, whenever it changed."""
    known: dict[str, dict[str, Any]] = {
        "serves": {name: own["serving"] for name, own in plan["workers"].items()},
        "runs": {name: own["from"] for name, own in plan["workers"].items()}, "open": {}}
    served, runs = sum(map(bool, known["serves"].values())), Counter(map(str, _known(known["runs"].values())))
    tasks = 0
    out = [_sample(0.0, served, runs, tasks)]
    for at, curve, name, value in sorted(story.changes, key=lambda change: change[0]):
        before, known[curve][name] = known[curve].get(name), value
        if curve == "serves":
            served += bool(value) - bool(before)
        elif curve == "open":
            tasks += (value or 0) - (before or 0)
        else:
            runs = runs + Counter(map(str, _known([value]))) - Counter(map(str, _known([before])))
        out.append(_sample(at, served, runs, tasks))
    told, end = _changes(out), _round(story.end)
    return told if told[-1]["at_s"] == end else [*told, {**told[-1], "at_s": end}]


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value]


def _sample(at: float, served: int, runs: Counter[str], tasks: int) -> Json:
    return {"at_s": _round(at), "serving": served, "versions": dict(sorted(runs.items())), "open": tasks}


def _changes(samples: list[Json]) -> list[Json]:
    """Return those that differ from the one before; of one moment the last."""
    last = [one for one, after in zip(samples, [*samples[1:], {}], strict=True) if one["at_s"] != after.get("at_s")]
    return [one for one, before in zip(last, [{}, *last], strict=False)
            if {**one, "at_s": 0} != {**before, "at_s": 0}]


def thinned(samples: list[Json]) -> list[Json]:
    """Return at most MOST_SAMPLES: of each stretch the one with the fewest that served, and the last of all."""
    if len(samples) <= MOST_SAMPLES:
        return samples
    first, *inner, last = samples
    size = -(-len(inner) // (MOST_SAMPLES - 2))
    stretches = [inner[start:start + size] for start in range(0, len(inner), size)]
    return [first, *(min(stretch, key=lambda one: one["serving"]) for stretch in stretches), last]


def _round(seconds: float) -> float:
    return round(max(0.0, seconds), 2)
