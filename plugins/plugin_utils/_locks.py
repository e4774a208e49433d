# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What the records of several workers prove together. One worker's record may say anything, so it never decides alone
for the others: whether a run is dead, which rollout goes on, and who belongs to the fleet. Pure functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._shape import Misfit, date, name

Holders = Mapping[str, Mapping[str, Any]]
# Whether a controller is proven dead, by what another one, the second, knows.
Dead = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]

# What tells one controller from another.
_IDENTITY = ("host", "machine_id", "boot_id", "pid", "pid_started", "pid_ns")
# A rollout's date is of the controller that began it; so much may two controllers' clocks differ.
SKEW_S = 300.0
_ID = name(200)
_CONTINUED_ID = re.compile(r"[A-Za-z0-9][^\s]{0,99}\Z")


def proven_dead(holders: Holders, own: Mapping[str, Any], dead: Dead) -> list[str]:
    """Return the runs that are certainly dead; HOLDERS is the lock on each worker that is held.

    A run has one controller and writes it into each lock that it takes. So all workers that name a run must name the
    same controller, and that one must be proven dead. Where one differs, somebody does not tell the truth, and the run
    may live: its locks end with their time, or by solver_lock_steal.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for holder in holders.values():
        runs.setdefault(str(holder["run_id"]), []).append(holder.get("controller") or {})
    return sorted(run for run, controllers in runs.items() if _agree(controllers)
                  and dead(controllers[0], own))


def _agree(controllers: Iterable[Mapping[str, Any]]) -> bool:
    return len({tuple(str(controller.get(part)) for part in _IDENTITY) for controller in controllers}) == 1


def dead_on(worker: str, holders: Holders, dead: Iterable[str]) -> list[str]:
    """Return the DEAD runs whose lock may be taken over on WORKER: only one that it was seen to name itself.

    A worker that could not be asked gave no evidence; the live lock on it may be of the very run that others belie.
    """
    run = str((holders.get(worker) or {}).get("run_id"))
    return [run] if run in set(dead) else []


def continuable(rollout: Mapping[str, Any], now: float) -> bool:
    """Whether a rollout that a record names may go on under its id on other workers as well.

    They take the id as the owner of their drains and keep it in their records, and the newest is the one that goes on.
    So it is an id as ours are, and its date is not yet to come.
    """
    try:
        _ID(rollout.get("id"), now)
        began = rollout.get("started_at")
        if began is not None:
            date(began, now, SKEW_S)
    except Misfit:
        return False
    return bool(_CONTINUED_ID.match(rollout["id"]))


def members(rosters: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the workers that the fleet is known to have; ROSTERS holds that of each worker that answers, or none.

    A name counts if more than half of the rosters have it, and where three or more workers answer, at least two. All
    rosters are written together at the end of each rollout, so they are equal but for a worker that was out of reach
    then. From three on that one is outvoted, and so is one that lies. A worker without a roster is new, or has lost
    its record: it has no vote, so it makes nobody forgotten.

    Of two rosters that differ neither can be believed, and their common names stand: a ghost must not stop all
    rollouts, while a member that is forgotten here was left out of the inventory as well. Where one or two answer, a
    single roster stands by itself: a run with one worker of a fleet must not take it for the whole fleet.
    """
    votes = [set(roster) for roster in rosters.values() if roster]
    named = Counter(one for vote in votes for one in vote)
    least = 2 if len(rosters) > 2 else 1
    return sorted(one for one, count in named.items() if 2 * count > len(votes) and count >= least)
