# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Turns that wait for each other, so that two versions never serve at once. Pure functions of the ledger's state.

Each turn says to which place it has come, and goes on when all have come there. One that falls turns everybody back,
and then nobody serves the old release before nobody serves the new one. A place that was passed by one is passed by
all: what comes after that, comes to workers that may serve the new release already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._errors import one_line
from ansible_collections.solver.fleet.plugins.plugin_utils._admit import stage_of
from ansible_collections.solver.fleet.plugins.plugin_utils._converge import rollout_of, serving
from ansible_collections.solver.fleet.plugins.plugin_utils._gate import TOGETHER, closed_gate
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Fell, Plan, State

# Where a turn comes to, in this order: let in by the gate, drained, switched and verified, watched to the end of its
# soak. For PILOT the others wait for the first of them alone.
GATHERED, DRAINED, VERIFIED, SOAKED = "gathered", "drained", "verified", "soaked"
PLACES = (GATHERED, DRAINED, VERIFIED, SOAKED)
PILOT = "pilot"
# On the way back: it does not serve the new release any more, or never did.
OUT = "out"
ON, BACK, WAIT = "on", "back", "wait"


def settings_of(settings: Mapping[str, Any], strategy: str, size: int) -> Mapping[str, Any]:
    """Return the settings as the strategy has them for a fleet of this SIZE.

    Where all are out at once nobody takes tasks while one finishes its own, so they are handed over, without a grace
    for the router. And one that fails is one too many.
    """
    if strategy != TOGETHER:
        return settings
    return {**settings, "window": size, "soaking": size, "solver_drain_mode": "handover", "solver_drain_grace": 0.0,
            "solver_max_fail_percentage": 0.0}


def members(plan: Plan, name: str) -> Sequence[str]:
    """Return who waits for each other, the pilot first."""
    return plan["stages"][stage_of(plan, name)]["workers"]


def way(plan: Plan, state: State, name: str, place: str) -> str:
    """Return whether NAME goes on from PLACE, goes back, or waits for others."""
    own = state["together"]
    if own["fell"] or (place not in own["passed"] and _lost(plan, state, name, place)):
        return BACK
    return WAIT if waited_for(plan, state, name, place) else ON


def waited_for(plan: Plan, state: State, name: str, place: str) -> list[str]:
    """Return who has not come to PLACE yet; who has left after it does not come again."""
    own, others = state["together"], members(plan, name)
    if place in own["passed"]:
        return []
    if place == PILOT:
        others, place = others[:1], VERIFIED
    return in_order(other for other in others if not _has_come(state, other, place))


def _has_come(state: State, name: str, place: str) -> bool:
    at = state["together"]["at"].get(name)
    left = state["phase"].get(name) == "left" and place == SOAKED
    return left or (at in PLACES and PLACES.index(str(at)) >= PLACES.index(place))


def _lost(plan: Plan, state: State, name: str, place: str) -> str:
    """Return why PLACE will never be passed: the gate has closed before all were in, or one has left already.

    Who leaves after all were verified says so by a fall, or it is no reason to turn back.
    """
    closed = closed_gate(state["closed"], state["hooks"])
    if place == GATHERED and closed:
        return closed["reason"]
    if place == SOAKED:
        return ""
    for other in members(plan, name):
        became = state["brief"].get(other) or {}
        if became and became.get("outcome") != "updated":
            return f"{other}: {one_line(became.get('reason'))}"
    return ""


def why_back(plan: Plan, state: State, name: str, place: str) -> Fell:
    """Return because of whom everybody goes back, and why."""
    known = state["together"]["fell"]
    return known or {"worker": "", "reason": _lost(plan, state, name, place)}


def serve_new(plan: Plan, state: State, name: str) -> list[str]:
    """Return who may serve the new release yet, while everybody goes back; nobody before all were verified."""
    own = state["together"]
    if VERIFIED not in own["passed"]:
        return []
    return in_order(other for other in members(plan, name)
                    if own["at"].get(other) != OUT and state["phase"].get(other) != "left")


def not_to_ask(plan: Plan, state: State, name: str) -> list[str]:
    """Return who cannot be asked for a reference solve; while the pilot is tried, the others are idle, unchanged."""
    others = members(plan, name)
    return [name] if name == others[0] and VERIFIED not in state["together"]["passed"] else list(others)


def headings(fleet: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return to which end each rollout is brought by a recovery whose workers went together: C(from) or C(to).

    Forward once somebody serves the new release: all were verified before that. Where somebody serves it and somebody
    else runs the old one, they have not gone together, and each keeps what it runs, as after any other rollout.
    """
    found: dict[str, list[str]] = {}
    for facts in fleet.values():
        census = facts.get("census") or {}
        own = rollout_of(census)
        if own.get("strategy") == TOGETHER:
            found.setdefault(str(own["id"]), []).append(_end_of(census, own))
    return {name: "to" if "serves new" in ends else "from" for name, ends in found.items()
            if not {"serves new", "runs old"} <= set(ends)}


def parting_warnings(fleet: Mapping[str, Mapping[str, Any]], kind: str, strategy: str) -> list[str]:
    """Say that a rollback brings workers apart which had gone together."""
    joined = any(rollout_of(facts.get("census") or {}).get("strategy") == TOGETHER for facts in fleet.values())
    if kind != "rollback" or strategy == TOGETHER or not joined:
        return []
    return [f"the last rollout took all workers together, and this rollback rolls, so two versions serve at once for a "
            f"while; with -e solver_strategy={TOGETHER} -e solver_accept_downtime=true they go back as one"]


def _end_of(census: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    worker = census.get("worker") or {}
    runs = (worker.get("instance") or {}).get("release")
    if not runs or worker.get("state") == "failed":
        return ""
    if runs == (own.get("to") or {}).get("release"):
        return "serves new" if serving(worker) else ""
    return "runs old" if runs == (own.get("from") or {}).get("release") else ""
