# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of the playbooks; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.solver.fleet.plugins.plugin_utils import (
    _entry,
    _locks,
    _plan_locks,
    _roster,
    _staging,
    _status,
    _toml,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Census

# What a census says of the record; the worker's own answer beside it may be whatever it is.
_OF_RECORD = ("rollout", "lock_state", "record_problem", "unreachable")


def let_in(census: Any) -> Census:
    """Return what a host answered as the shape of a census has it."""
    try:
        return _entry.census(plain(census), time.time())
    except RecursionError:
        return _entry.census("too deep", time.time())


def lock_free(census: Mapping[str, Any]) -> bool:
    """Say whether no live rollout holds the worker, by all that this machine can know."""
    seen = let_in({"finding": "stopped", **{name: census[name] for name in _OF_RECORD if name in census}})
    holder = _plan_locks.holder_of(seen)
    unread = "wrong" in seen or seen.get("record_problem")
    return not unread and (
        holder is None or bool(_locks.proven_dead({"it": holder}, _process.here(), _process.provably_dead)))


def address_kept(census: Mapping[str, Any], worker: Mapping[str, Any], routers: Mapping[str, Any]) -> bool:
    """Say whether the routers go on finding a worker that serves, at the address that the inventory has for it."""
    return not _roster.leaves(let_in(census), worker["data_address"], worker["machine"], routers)


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """Show a fleet's state."""
    return _status.lines(_status.status({name: let_in(census) for name, census in fleet.items()}, time.time()))


def last_of_machines(removed: Iterable[str], workers: Mapping[str, Any]) -> list[str]:
    """Of the removed workers name one for each machine on which the inventory has no other one."""
    gone, own = set(removed), plain(workers)
    stay = {worker["machine"] for name, worker in own.items() if name not in gone}
    firsts: dict[tuple[str, str], str] = {}
    for name in in_order(gone & set(own)):
        firsts.setdefault((own[name]["machine"], own[name]["base_dir"]), name)
    return [name for (machine, _base), name in firsts.items() if machine not in stay]


def release_wheel(wheels: Iterable[Mapping[str, Any]], rollout: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wheel of the release that ROLLOUT leads to."""
    try:
        return _staging.release_wheel(plain(wheels), plain(rollout["package_name"]),
                                      plain(rollout["settings"]["solver_version"]))
    except _staging.WrongVersionError as error:
        raise AnsibleFilterError(str(error)) from error


def to_toml(sections: Mapping[str, Any]) -> str:
    """Write sections of plain values as TOML."""
    return _toml.dumps(plain(sections))


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "address_kept": address_kept, "fleet_lines": fleet_lines, "last_of_machines": last_of_machines,
            "lock_free": lock_free, "release_wheel": release_wheel, "to_toml": to_toml,
        }
