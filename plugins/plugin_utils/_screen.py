# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What people see of a rollout under way, from its events alone. Pure functions, and a state that they change."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._lines import progress_line
from ansible_collections.solver.fleet.plugins.plugin_utils._plan_lines import minutes

Event = Mapping[str, Any]

# What a worker is doing, by its step.
_DOING = {"drain": "drains", "switch": "restarts", "verify": "solves its probe", "resume": "goes back into service",
          "soak": "serves, watched", "record": "has its outcome written down",
          "revert_drain": "drains to go back", "revert": "goes back",
          "revert_verify": "is looked at after going back", "revert_resume": "goes back into service",
          "give_back": "goes back into service", "raise": "gets a standby", "serve": "is looked at",
          "settle": "comes home from its slot", "keep": "keeps the old release as a standby",
          "drop": "loses its standby", "hold": "waits for the others", "renew": "waits for the others"}


@dataclass
class Turn:
    """One worker that is at it."""

    began: float
    step: str = ""
    steps: list[str] = field(default_factory=list)
    open: int | None = None
    oldest_s: float | None = None


@dataclass
class Screen:
    """All that the lines are made of. C(verdict) holds the last lines, once there are any."""

    rollout: str = ""
    locked: bool = False
    order: list[str] = field(default_factory=list)
    estimate_s: float = 0.0
    began: float = 0.0
    turns: dict[str, Turn] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    failed: int = 0
    tolerated: int = 0
    floor: int = 0
    fleet: int = 0
    out: set[str] = field(default_factory=set)
    p99_s: dict[str, float] = field(default_factory=dict)
    waits: str = ""
    task: str = ""
    task_began: float = 0.0
    task_hosts: int = 0
    asking: str = ""
    asking_began: float = 0.0
    verdict: list[str] = field(default_factory=list)


def take(screen: Screen, event: Event) -> list[str]:
    """Take one event in; return the lines that it is worth."""
    lines = _LINES[event["event"]](screen, event) if event["event"] in _LINES else []
    return [clean(line) for line in lines]


def clean(text: str) -> str:
    """Return a line in which nothing can move the cursor, colour the screen or begin another line."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def folded(line: str, width: int) -> list[str]:
    """Return a line in parts that fit a terminal, which would break it inside a word."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, max(20, width - 1), subsequent_indent=f"{indent}  ", drop_whitespace=True,
                         break_on_hyphens=False) or [line]


def shown(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a task that shows something: a text, or several."""
    values = [value for name, value in result.items()
              if name not in ("changed", "failed") and not name.startswith("_ansible")]
    lines = [line for value in values for line in (value if isinstance(value, (list, tuple)) else [value])]
    return [clean(part) for line in lines for part in str(line).splitlines()]


def heartbeat(screen: Screen, now: float) -> str:
    """Return what is going on, in one line; nothing where nothing is."""
    at_work = [_at_work(name, turn, now) for name, turn in screen.turns.items()]
    if not at_work and not screen.waits:
        return clean(_task(screen, now))
    left = _left_s(screen, now)
    rest = f", about {minutes(left)} left" if left else ""
    doing = "; ".join(at_work) or f"waits: {screen.waits}"
    return clean(f"{doing} ({len(screen.ended)} of {len(screen.order)} done{rest})")


def block(screen: Screen, now: float, width: int, height: int) -> list[str]:
    """Return what is going on, in lines that are drawn anew: a head, and each worker that is at it; half a screen."""
    if screen.verdict and not screen.asking:
        return []
    if screen.verdict or not screen.began:
        return [clean(line)[:width - 1] for line in [_task(screen, now)] if line]
    gone = now - screen.began
    left = _left_s(screen, now)
    serving = screen.fleet - len({*screen.out, *(name for name, turn in screen.turns.items() if turn.step != "soak")})
    head = (f"{len(screen.ended)}/{len(screen.order)} done | {serving}/{screen.fleet} serve (floor {screen.floor}) | "
            f"{screen.failed} failed ({screen.tolerated} may) | {minutes(gone)}"
            + (f", about {minutes(left)} left" if left else ""))
    room = max(1, height // 2 - 2)
    names = list(screen.turns)
    rows = [_row(screen, name, screen.turns[name], now) for name in names[:room]]
    rows += [f"and {len(names) - room} more"] if len(names) > room else []
    rows += [f"waits: {screen.waits}"] if screen.waits and not names else []
    rows += [_task(screen, now)] if screen.asking and not names else []
    return [clean(line)[:max(20, width - 1)] for line in (head, *(f"  {row}" for row in rows))]


def _task(screen: Screen, now: float) -> str:
    """Before the first turn, and where there is none, the task, and how many workers are through it, is all."""
    if screen.asking:
        return f"{screen.asking}, {now - screen.asking_began:.0f} s"
    if not screen.task or screen.verdict:
        return ""
    hosts = f", {screen.task_hosts} hosts done" if screen.task_hosts else ""
    return f"{screen.task}{hosts}, {now - screen.task_began:.0f} s"


def _row(screen: Screen, name: str, turn: Turn, now: float) -> str:
    text = f"{name:<12} {_at_work('', turn, now).strip()}"
    if "drain" not in turn.step or not turn.open or turn.oldest_s is None:
        return text
    rest = screen.p99_s.get(name, 0.0) - turn.oldest_s
    return f"{text}, oldest {turn.oldest_s:.0f} s" + (f", mostly done in {rest:.0f} s" if rest > 0 else "")


def interrupted(screen: Screen) -> list[str]:
    """Return what somebody should know who sees the run end without a verdict."""
    if not screen.locked or screen.verdict:
        return []
    at_work = [f"{name} ({_DOING.get(turn.step, 'begins')})" for name, turn in screen.turns.items()]
    return [clean(line) for line in (
        f"interrupted: {len(screen.ended)} of {len(screen.order)} workers had their turn (rollout {screen.rollout})"
        + (f"; in its turn: {', '.join(at_work)}" if at_work else ""),
        "Nothing is lost: a drained worker comes back when its lease ends. Run the same command again to go on, or "
        "solver.fleet.recover to bring back what was left.")]


def _at_work(name: str, turn: Turn, now: float) -> str:
    tasks = f", {turn.open} tasks open" if turn.open is not None and "drain" in turn.step else ""
    return f"{name} {_DOING.get(turn.step, 'begins')}{tasks}, {now - turn.began:.0f} s"


def _left_s(screen: Screen, now: float) -> float:
    """By the plan's estimate until somebody has ended, by what was measured from then on."""
    todo = len(screen.order) - len(screen.ended)
    if not screen.began or todo <= 0:
        return 0.0
    used = now - screen.began
    if screen.ended:
        return used / len(screen.ended) * todo
    return max(0.0, screen.estimate_s - used)


# -- the events --------------------------------------------------------------------------------


def _planned(screen: Screen, event: Event) -> list[str]:
    screen.rollout, screen.estimate_s = str(event["rollout_id"]), float(event["estimate_s"] or 0.0)
    screen.order = [name for stage in event["stages"] for name in stage["workers"]]
    screen.tolerated, screen.floor = int(event.get("tolerated") or 0), int(event.get("floor") or 0)
    screen.fleet, screen.p99_s = screen.floor + int(event.get("window") or 0), dict(event.get("p99_s") or {})
    screen.out = set(event.get("out") or [])
    return [f"{event['kind']} {event['rollout_id']}", *(f"  {line}" for line in event.get("lines", []))]


def _looked(screen: Screen, event: Event) -> list[str]:
    screen.waits = ""
    silent = event["of"] - event["answering"]
    return [f"{event['answering']} of {event['of']} workers answer"] if silent else []


def _asking(screen: Screen, event: Event) -> list[str]:
    over = event["number"] == event["of"]
    if not over and not screen.asking:
        screen.asking_began = float(event["clock"])
    screen.asking = "" if over else f"{event['number']} of {event['of']} workers {event['done']}"
    return []


def _locked(screen: Screen, _event: Event) -> list[str]:
    screen.locked = True
    return []


def _waiting(screen: Screen, event: Event) -> list[str]:
    fresh = event["reason"] != screen.waits
    screen.waits = str(event["reason"])
    # While others are at work it is no news that the next one waits for them.
    return [f"waits: {screen.waits}"] if fresh and not screen.turns else []


def _admitted(screen: Screen, event: Event) -> list[str]:
    name = event["worker"]
    screen.began, screen.waits = screen.began or float(event["clock"]), ""
    screen.turns[name] = Turn(float(event["clock"]))
    if event["part"] == "back":
        return [f"{name} goes back"]
    return [f"{name} begins ({len(screen.ended) + len(screen.turns)} of {len(screen.order)})"]


def _program_begun(screen: Screen, event: Event) -> list[str]:
    turn = screen.turns.get(event["worker"])
    if turn is not None and event["steps"]:
        turn.steps, turn.step = list(event["steps"]), event["steps"][0]
    return []


def _progress(screen: Screen, event: Event) -> list[str]:
    turn = screen.turns.get(event["worker"])
    if turn is not None:
        turn.step = event["step"]
        remaining = event.get("remaining") or {}
        turn.open, turn.oldest_s = remaining.get("open"), remaining.get("oldest_age_s")
    return []


def _step_ended(screen: Screen, event: Event) -> list[str]:
    turn = screen.turns.get(event["worker"])
    if turn is not None:
        turn.step = _next_step(turn.steps, event["step"])
    return [] if event["ok"] else [f"{event['worker']} {event['step'].replace('_', ' ')} failed: {event.get('reason')}"]


def _next_step(steps: list[str], step: str) -> str:
    later = steps[steps.index(step) + 1:] if step in steps else []
    return later[0] if later else step


def _follow_up(_screen: Screen, event: Event) -> list[str]:
    said = {"revert": "is reverted to where it came from", "resume": "goes back into service as it is"}
    return [f"{event['worker']} {said[event['action']]}"] if event["action"] in said else []


def _fell(_screen: Screen, event: Event) -> list[str]:
    return [f"all go back: {event['reason']}"]


def _reference(_screen: Screen, event: Event) -> list[str]:
    return [f"{event['worker']}: the same solve at {event['at']} {'passed' if event['ok'] else 'failed too'}"]


def _outcome(screen: Screen, event: Event) -> list[str]:
    screen.turns.pop(event["worker"], None)
    if event["part"] == "back":
        return [f"{event['worker']} is back at {event.get('to')}" if event["outcome"] == "updated" else
                f"{event['worker']} could not go back: {event.get('reason')}"]
    screen.ended.append(event["worker"])
    screen.failed += event["outcome"] != "updated"
    serves = event["outcome"] in ("updated", "reverted", "returned")
    (screen.out.discard if serves else screen.out.add)(event["worker"])
    return [progress_line(event["worker"], event, len(screen.ended), len(screen.order))]


def _closed(screen: Screen, event: Event) -> list[str]:
    screen.waits = ""
    return [f"no further worker begins: {event['reason']}"]


def _bake(screen: Screen, event: Event) -> list[str]:
    screen.waits = f"canaries are compared: {event['reason']}"
    return [screen.waits]


def _judged(screen: Screen, event: Event) -> list[str]:
    screen.waits = ""
    return [f"canaries: {event['word']}, {event['reason']}"] if event["reason"] else []


def _hook_failed(_screen: Screen, event: Event) -> list[str]:
    return [f"the hook {event['hook']} failed: {event['reason']}"]


def _seen(screen: Screen, event: Event) -> list[str]:
    (screen.out.discard if event["serves"] else screen.out.add)(event["worker"])
    return []


def _verdict(screen: Screen, event: Event) -> list[str]:
    screen.waits = ""
    screen.verdict = [clean(line) for line in event.get("lines") or [str(event["verdict"])]]
    return []


_LINES: dict[str, Callable[[Screen, Event], list[str]]] = {
    "looked": _looked, "planned": _planned, "locked": _locked, "waiting": _waiting, "admitted": _admitted,
    "program_begun": _program_begun, "progress": _progress, "step_ended": _step_ended, "follow_up": _follow_up,
    "reference_solve": _reference, "outcome": _outcome, "closed": _closed, "hook_failed": _hook_failed,
    "seen": _seen, "verdict": _verdict, "bake": _bake, "judged": _judged, "fell": _fell, "asking": _asking,
}
