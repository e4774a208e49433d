# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of the playbooks; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _lines, _lock, _plan, _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._action import plain
from ansible_collections.solver.fleet.plugins.plugin_utils._names import in_order


def lock_free(census: Mapping[str, Any]) -> bool:
    """Say whether no live rollout holds the worker, by all that this machine can know."""
    holder = _plan.holder_of(plain(census))
    return holder is None or bool(_lock.dead_runs([holder], _lock.here()))


def address_kept(census: Mapping[str, Any], worker: Mapping[str, Any], routers: Mapping[str, Any]) -> bool:
    """Say whether the routers go on finding a worker that serves, at the address that the inventory has for it."""
    return not _plan.leaves(plain(census), worker["data_address"], worker["machine"], routers)


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """Show a fleet's state."""
    return _lines.fleet_lines(plain(fleet))


def last_of_machines(removed: Iterable[str], workers: Mapping[str, Any]) -> list[str]:
    """Of the removed workers name one for each machine on which the inventory has no other one."""
    gone, own = set(removed), plain(workers)
    stay = {worker["machine"] for name, worker in own.items() if name not in gone}
    firsts: dict[tuple[str, str], str] = {}
    for name in in_order(gone & set(own)):
        firsts.setdefault((own[name]["machine"], own[name]["base_dir"]), name)
    return [name for (machine, _base), name in firsts.items() if machine not in stay]


def to_toml(sections: Mapping[str, Any]) -> str:
    """Write sections of plain values as TOML."""
    return _toml.dumps(plain(sections))


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "address_kept": address_kept, "fleet_lines": fleet_lines, "last_of_machines": last_of_machines,
            "lock_free": lock_free, "to_toml": to_toml,
        }
