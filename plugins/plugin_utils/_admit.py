# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Who has a place in the window, and who is next. Functions of the ledger's state; only
C(end_stage) changes it.

The state maps each worker whose turn has begun to its phase, in the order of admission: C(turn) holds a place in the
window, C(soak) serves and is being watched, C(again) waits for a place because its soak failed, C(left) is over. One
that is switched by a standby has two phases before these, in which it serves: C(raise), until the standby is verified,
and C(raised), until it has a place.
"""

from __future__ import annotations

from ansible_collections.solver.fleet.plugins.plugin_utils._types import Plan, State

NOT_YET = "it is not the worker's turn"


def begin(at: float) -> State:
    """Return the state before the first turn."""
    return {"phase": {}, "brief": {}, "begun": [], "ended": [], "closed": {}, "healthy_at": at, "probes": [],
            "hooks": [], "together": {"at": {}, "passed": [], "fell": None}}


def in_flight(state: State) -> list[str]:
    """Return the workers that are in their turn, and out of service by it; each holds a place in the window."""
    return [name for name, phase in state["phase"].items() if phase == "turn"]


def beside(state: State) -> list[str]:
    """Return the workers that are at work before they serve again: those in their turn, and whoever has a standby."""
    return [name for name, phase in state["phase"].items() if phase in ("raise", "raised", "turn")]


def soaking(state: State) -> list[str]:
    """Return the workers that serve again, unproven."""
    return [name for name, phase in state["phase"].items() if phase == "soak"]


def occupied(state: State, max_soaking: int) -> int:
    """Return how many places of the window are taken: one that soaks beyond the bound keeps its place."""
    return len(in_flight(state)) + max(0, len(soaking(state)) - max_soaking)


def stage_of(plan: Plan, name: str) -> int:
    """Return the number of a worker's stage."""
    return next(number for number, stage in enumerate(plan["stages"]) if name in stage["workers"])


def waits_for(plan: Plan, state: State, name: str) -> str:
    """Return what keeps a worker from asking the gate: others, its stage's hook, a full window; or nothing."""
    number = stage_of(plan, name)
    stage = plan["stages"][number]
    phase = state["phase"]
    if name != next((other for other in stage["workers"] if other not in phase), None):
        return NOT_YET
    if name != stage["workers"][0] and number not in state["begun"]:
        return "the stage is not open yet"
    if plan["workers"][name]["switch"] == "standby":
        many = len(beside(state))
        return f"{many} workers have a standby already, as many as solver_surge" if many >= plan["surge"] else ""
    return _no_place(plan, state, number)


def waits_to_take_over(plan: Plan, state: State, name: str) -> str:
    """Return what keeps a verified standby from asking the gate, or nothing."""
    number = stage_of(plan, name)
    stage, phase = plan["stages"][number], state["phase"]
    if name != next(other for other in stage["workers"] if phase.get(other) == "raised"):
        return NOT_YET
    if stage.get("barrier") and (late := [other for other in stage["workers"] if phase.get(other) in (None, "raise")]):
        return f"{len(late)} standbys are not verified yet"
    return _no_place(plan, state, number)


def _no_place(plan: Plan, state: State, number: int) -> str:
    again = [other for other, own in state["phase"].items() if own == "again"]
    if again:
        return f"{', '.join(again)} must go back first"
    window = plan["stages"][number]["window"]
    return f"the window of {window} is full" if occupied(state, plan["max_soaking"]) >= window else ""


def end_stage(plan: Plan, state: State, number: int) -> bool:
    """Note that a stage is over, if it is; return whether this is news."""
    ends = ends_stage(plan, state, number)
    if ends:
        state["ended"].append(number)
    return ends


def ends_stage(plan: Plan, state: State, number: int) -> bool:
    """Whether a stage is over and nobody has said so: nobody of it is at work, and nobody will begin."""
    phases = [state["phase"].get(name) for name in plan["stages"][number]["workers"]]
    at_work = any(phase not in (None, "left") for phase in phases)
    begun = any(phases) or number in state["begun"]
    over = not at_work and begun and (bool(state["closed"]) or None not in phases)
    return over and number not in state["ended"]
