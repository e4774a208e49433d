# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""Who belongs to the fleet, and under which address the routers know each worker. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._locks import members
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order, listed
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import LOOPBACK

Fleet = Mapping[str, Mapping[str, Any]]

# A second process may become larger than the first is now, and the machine needs some itself.
ROOM = 1.5

NOT_FOLLOWED = ("the routers do not follow a serving worker to another address (solver_data_host, solver_data_port); "
                "remove it and provision it again, or roll with -e solver_router_hosts=none and run provision.yml "
                "afterwards, which leaves it without tasks from the routers in between")


def by_name(fleet: Fleet) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the workers with what is known of them, in the order in which people read names."""
    return [(name, fleet[name]) for name in in_order(fleet)]


def roster_of(fleet: Fleet) -> list[str]:
    """Return every worker that the workers' records know of."""
    return in_order(members({name: ((facts.get("census") or {}).get("rollout") or {}).get("roster") or []
                             for name, facts in fleet.items() if (facts.get("census") or {}).get("worker")}))


def roster_refusals(fleet: Fleet, settings: Mapping[str, Any], kind: str) -> list[str]:
    """Say which known workers the inventory lacks; window and budget must be those of the whole fleet."""
    if settings["solver_allow_partial"] or kind == "recover":
        return []
    expected = settings.get("solver_fleet_size") or 0
    out = []
    if expected and expected != len(fleet):
        out.append(f"the run has {len(fleet)} workers, but solver_fleet_size is {expected}; "
                   "give it the whole inventory, or correct solver_fleet_size")
    missing = in_order(set(roster_of(fleet)) - set(fleet) - set(settings.get("solver_forget") or []))
    if missing:
        out.append(f"the inventory lacks {', '.join(missing)}, which earlier rollouts knew; give it the whole fleet, "
                   "name workers that are gone for good in solver_forget, or set solver_allow_partial: true")
    return out


def address_of(release: Mapping[str, Any] | None) -> str:
    """Return where a release answers for its data API; releases of early versions do not say."""
    return str((release or {}).get("data_address") or "")


def leaves(
    census: Mapping[str, Any], then: str, machine: str, routers: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the address at which a router may send to a worker, if the worker would leave it for THEN.

    One that does not serve may have any; a router on another machine never got to a loopback.
    """
    if census.get("finding") != "answering" or census["worker"]["state"] == "failed":
        return ""
    now = address_of((census.get("releases") or {}).get("current"))
    reached = now.rpartition(":")[0] not in LOOPBACK or machine in {router["machine"] for router in routers.values()}
    return now if then and now != then and routers and reached else ""


def memory_refusals(
    fleet: Fleet, machines: Mapping[str, str], names: Iterable[str], surge: int, strategy: str,
) -> list[str]:
    """Say which machines have no memory for as many standbys as may be there at once; NAMES are who gets one."""
    beside: dict[str, list[tuple[str, int, int]]] = {}
    for name in names:
        memory = (fleet[name].get("census") or {}).get("standby_memory")
        if memory:
            beside.setdefault(machines[name], []).append((name, memory["needs"], memory["spare"]))
    return [why for own in beside.values() for why in _crowded(own, surge, strategy)]


def _crowded(own: list[tuple[str, int, int]], surge: int, strategy: str) -> list[str]:
    spare = min(spare for _name, _needs, spare in own)
    sums = list(accumulate(sorted((needs for _name, needs, _spare in own), reverse=True)))[:surge]
    fits = sum(1 for needs in sums if ROOM * needs <= spare)
    if fits == len(sums):
        return []
    fewer = f"set solver_surge: {fits}, or " if fits else ""
    remedy = "set solver_strategy: rolling" if strategy == "blue_green" else f"{fewer}set solver_switch: in_place"
    return [f"{listed(name for name, _needs, _spare in own)}: the machine has {spare >> 20} MB of memory to spare, and "
            f"standbys for {len(sums)} at once need {sums[-1] >> 20} MB and some room; {remedy}"]


def moving_refusals(
    fleet: Fleet, machines: Mapping[str, str], routers: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Say which workers would leave the address at which a router knows them."""
    moving = []
    for name, facts in by_name(fleet):
        then = address_of((facts.get("staged") or {}).get("release"))
        now = leaves(facts.get("census") or {}, then, machines[name], routers)
        if now:
            moving.append(f"{name} from {now} to {then}")
    return [f"{', '.join(moving)}: {NOT_FOLLOWED}"] if moving else []
