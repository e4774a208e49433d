# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This plugin file holds the filters of the update; each is documented in a file of its own.
"""Filters: thin names for the pure functions that decide."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.solver.fleet.plugins.plugin_utils import _fault, _gate, _lines, _lock, _plan, _step, _toml
from ansible_collections.solver.fleet.plugins.plugin_utils._action import plain

# How long the playbook waits between two looks at a lock, on average.
LOOK_S = 10


def update_next(
    steps: Mapping[str, Any], revertible: bool = True, planned: Mapping[str, Any] | None = None,
) -> str:
    """Decide what follows a failed step."""
    return _step.next_action(plain(steps), bool(revertible), plain(planned or {}))


def update_needs_control(steps: Mapping[str, Any]) -> bool:
    """Say whether a failed probe needs a control before anything is blamed."""
    return _fault.needs_control(plain(steps))


def update_outcome(steps: Mapping[str, Any], planned: Mapping[str, Any], revertible: bool = True) -> dict[str, Any]:
    """Say what became of a worker."""
    return _step.outcome(plain(planned), plain(steps), bool(revertible))


def control_tried(control: Mapping[str, Any]) -> bool:
    """Say whether a control solve tells anything."""
    return _fault.tried(plain(control))


def control_workers(
    plan: Mapping[str, Any], rollout: Mapping[str, Any], batch: list[str], asking: str = "",
) -> list[dict[str, str]]:
    """Name the workers that can be asked for a control solve."""
    return _gate.control_workers(plain(plan), plain(rollout), [str(name) for name in batch], str(asking))


def hook_outcome(failures: list[Mapping[str, Any]], plan: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Say what became of a worker whose own hook failed before it."""
    return _gate.hook_outcome(plain(failures), plain(plan), str(name))


def lock_free(census: Mapping[str, Any]) -> bool:
    """Say whether no live rollout holds the worker, by all that this machine can know."""
    holder = _plan.holder_of(plain(census))
    return holder is None or bool(_lock.dead_runs([holder], _lock.here()))


def address_kept(census: Mapping[str, Any], worker: Mapping[str, Any], routers: Mapping[str, Any]) -> bool:
    """Say whether the routers go on finding a worker that serves, at the address that the inventory has for it."""
    return not _plan.leaves(plain(census), worker["data_address"], worker["machine"], routers)


def lock_retries(rollout: Mapping[str, Any]) -> int:
    """Say how often to look again, within what is left of solver_lock_wait."""
    return max(0, math.ceil((float(rollout["wait_until"]) - time.monotonic()) / LOOK_S))


def progress_line(result: Mapping[str, Any], plan: Mapping[str, Any], name: str) -> str:
    """Say it in one line."""
    return _lines.progress_line(plain(plan), str(name), plain(result))


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """Show a fleet's state."""
    return _lines.fleet_lines(plain(fleet))


def to_toml(sections: Mapping[str, Any]) -> str:
    """Write sections of plain values as TOML."""
    return _toml.dumps(plain(sections))


def wave_hosts(groups: Mapping[str, Any], prefix: str = _plan.WAVE_GROUP) -> str:
    """Return the play's host pattern: the wave groups, joined in order."""
    return ":".join(_plan.wave_groups(groups, prefix)) or "localhost:!localhost"


def wave_sizes(groups: Mapping[str, Any], prefix: str = _plan.WAVE_GROUP) -> list[int]:
    """Return the play's serial: the size of each wave."""
    return [len(groups[name]) for name in _plan.wave_groups(groups, prefix)] or [1]


def within_limit(pattern: str, fleet: list[str], limited: list[str], limit: str = "") -> str:
    """Return the pattern, or fail when the limit of the run leaves no worker of the fleet."""
    # Without a limit, a play of localhost says so, and a check of the syntax has no inventory at all.
    if not fleet and limit:
        raise AnsibleFilterError(f"the inventory has no workers: nothing matches {pattern}; name the inventory with "
                                 "-i, or the group with solver_hosts")
    if fleet and not set(fleet) & set(limited):
        raise AnsibleFilterError("the limit of this run leaves no worker of the fleet; run it without --limit")
    return pattern


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "address_kept": address_kept, "control_tried": control_tried, "control_workers": control_workers,
            "fleet_lines": fleet_lines, "hook_outcome": hook_outcome, "lock_free": lock_free,
            "lock_retries": lock_retries, "progress_line": progress_line, "to_toml": to_toml,
            "update_needs_control": update_needs_control, "update_next": update_next,
            "update_outcome": update_outcome,
            "wave_hosts": wave_hosts, "wave_sizes": wave_sizes,
            "within_limit": within_limit,
        }
