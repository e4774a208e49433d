# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of the playbooks; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _lines, _plan, _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._action import plain


def lock_free(census: Mapping[str, Any]) -> bool:
    """Say whether no live rollout holds the worker, by all that this machine can know."""
    holder = _plan.holder_of(plain(census))
    return holder is None or bool(_process.dead_runs([holder], _process.here()))


def address_kept(census: Mapping[str, Any], worker: Mapping[str, Any], routers: Mapping[str, Any]) -> bool:
    """Say whether the routers go on finding a worker that serves, at the address that the inventory has for it."""
    return not _plan.leaves(plain(census), worker["data_address"], worker["machine"], routers)


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """Show a fleet's state."""
    return _lines.fleet_lines(plain(fleet))


def to_toml(sections: Mapping[str, Any]) -> str:
    """Write sections of plain values as TOML."""
    return _toml.dumps(plain(sections))


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "address_kept": address_kept, "fleet_lines": fleet_lines, "lock_free": lock_free, "to_toml": to_toml,
        }
