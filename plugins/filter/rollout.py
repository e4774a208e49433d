# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of the update; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.solver.fleet.plugins.plugin_utils import _rollout, _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._action import plain


def update_next(steps: Mapping[str, Any]) -> str:
    """Decide what follows a failed step."""
    return _rollout.next_action(plain(steps))


def update_outcome(steps: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    """Say what became of a worker."""
    return _rollout.outcome(plain(planned), plain(steps))


def progress_line(result: Mapping[str, Any], plan: Mapping[str, Any], name: str) -> str:
    """Say it in one line."""
    return _rollout.progress_line(plain(plan), str(name), plain(result))


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """Show a fleet's state."""
    return _rollout.fleet_lines(plain(fleet))


def to_toml(sections: Mapping[str, Any]) -> str:
    """Write sections of plain values as TOML."""
    return _toml.dumps(plain(sections))


def wave_hosts(groups: Mapping[str, Any]) -> str:
    """Return the play's host pattern: the wave groups, joined in order."""
    return ":".join(_rollout.wave_groups(groups)) or "localhost:!localhost"


def wave_sizes(groups: Mapping[str, Any]) -> list[int]:
    """Return the play's serial: the size of each wave."""
    return [len(groups[name]) for name in _rollout.wave_groups(groups)] or [1]


def within_limit(pattern: str, fleet: list[str], limited: list[str]) -> str:
    """Return the pattern, or fail when the limit of the run leaves no worker of the fleet."""
    if fleet and not set(fleet) & set(limited):
        raise AnsibleFilterError("the limit of this run leaves no worker of the fleet; run it without --limit")
    return pattern


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "fleet_lines": fleet_lines, "progress_line": progress_line, "to_toml": to_toml,
            "update_next": update_next, "update_outcome": update_outcome,
            "wave_hosts": wave_hosts, "wave_sizes": wave_sizes,
            "within_limit": within_limit,
        }
