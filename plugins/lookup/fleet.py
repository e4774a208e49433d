# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pattern of the fleet for the C(hosts) of a play, or an error where a play would silently do nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
author:
  - solver.fleet contributors (@solver-fleet)
version_added: "1.1.0"
short_description: Return the host pattern of the fleet, or fail where nobody would be left
description:
  - Returns the pattern that it is given, C(solver_workers) by default, for the C(hosts) of a play.
  - Fails where the inventory has no such host, where the limit of the run leaves none of them, and with
    C(--start-at-task). Ansible would skip the plays and end with exit status 0.
  - This is internal to the playbooks of the collection, and may change in any release.
options:
  _terms:
    description: The pattern; empty for C(solver_workers).
    type: list
    elements: str
  limited:
    description: Whether a limit may leave nobody of the fleet, because the playbook has other hosts as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Do something with every worker
  hosts: "{{ lookup('solver.fleet.fleet', solver_hosts | default('')) }}"
"""

RETURN = r"""
_list:
  description: The pattern.
  type: list
  elements: str
"""

from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """Looks at the inventory's groups alone, because the hosts of a play are chosen before any host's variables are."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        self.set_options(var_options=variables, direct=options)
        pattern = str(next(iter(terms), None) or "solver_workers")
        if context.CLIARGS.get("syntax"):
            return [pattern]
        if context.CLIARGS.get("start_at_task"):
            raise AnsibleError("--start-at-task leaves out what the rest of the playbook builds on; run it from its "
                               "beginning, a second run goes on where the first one ended")
        groups, limit = (variables or {})["groups"], str((variables or {}).get("ansible_limit") or "")
        inventory = InventoryManager(self._loader, parse=False)
        for group, hosts in groups.items():
            inventory.add_group(group)
            for host in hosts:
                inventory.add_host(host, group=group)
        fleet = {host.name for host in inventory.get_hosts(pattern)}
        if not fleet:
            raise AnsibleError(f"the inventory has no workers: nothing matches {pattern}; name the inventory with -i, "
                               "or the group with solver_hosts")
        if limit and not self.get_option("limited") and not fleet & _within(inventory, limit):
            raise AnsibleError("the limit of this run leaves no worker of the fleet; run it without --limit")
        return [pattern]


def _within(inventory: InventoryManager, limit: str) -> set[str]:
    """Return the hosts of a limit, which may name a file of hosts (C(@retry)), as a pattern may not."""
    inventory.subset(limit)
    return {host.name for host in inventory.get_hosts("all")}
