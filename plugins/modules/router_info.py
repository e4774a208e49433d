#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask HAProxy how the workers behind it are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: router_info
short_description: Ask the router how the workers behind it are
version_added: "1.0.0"
description:
  - Reads HAProxy's statistics socket, and never changes anything.
  - Tells of each worker whether the router gives it new tasks now, which is what clients see.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Nothing is ever changed.
  idempotent:
    support: N/A
    details: Nothing is ever changed.
  platform:
    support: full
    platforms: posix
options:
  stats_socket:
    description: HAProxy's statistics socket on the target.
    type: path
    default: /run/solver-router/stats.sock
  backend:
    description: The backend whose servers are the workers.
    type: str
    default: solver
  timeout:
    description: Seconds for the whole look.
    type: float
    default: 5.0
seealso:
  - module: solver.fleet.worker_info
"""

EXAMPLES = r"""
- name: Ask the router
  solver.fleet.router_info:
  register: router

- name: Say who gets new tasks
  ansible.builtin.debug:
    var: router.serving
"""

RETURN = r"""
servers:
  description: The workers by name.
  returned: success
  type: dict
  sample:
    w1: {status: UP, serving: true, sessions: 3}
  contains:
    status:
      description: HAProxy's word, V(UP), V(DOWN), V(NOLB) for one that drains, V(MAINT), V(DRAIN).
      type: str
      returned: always
    serving:
      description: Whether it gets new tasks.
      type: bool
      returned: always
    check:
      description: What the last health check found.
      type: str
      returned: always
    address:
      description: Where HAProxy reaches it.
      type: str
      returned: always
    sessions:
      description: Requests that it answers now.
      type: int
      returned: always
serving:
  description: Names of the workers that get new tasks.
  returned: success
  type: list
  elements: str
version:
  description: HAProxy's version.
  returned: success
  type: str
uptime_s:
  description: Seconds since its process began; a reload begins a new one.
  returned: success
  type: int
pid:
  description: Its process.
  returned: success
  type: int
connections:
  description: Connections that it has now.
  returned: success
  type: int
failure:
  description: The failure for machines.
  returned: failure
  type: dict
  contains:
    code:
      description: V(no_socket), V(dead), V(denied), V(hung), V(broken), V(foreign) or V(no_backend).
      type: str
      returned: always
    cause:
      description:
        - What it is blamed on, V(release), V(drain), V(host) or V(unknown).
        - Always V(unknown) with the code V(crashed), a fault of the collection itself, which any call can meet.
      type: str
      returned: always
    message:
      description: The cause for people.
      type: str
      returned: always
    details:
      description: More about the cause.
      type: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json
from ansible_collections.solver.fleet.plugins.module_utils._haproxy import look
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt, leave
from ansible_collections.solver.fleet.plugins.module_utils._result import positive


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "stats_socket": {"type": "path", "default": "/run/solver-router/stats.sock"},
            "backend": {"type": "str", "default": "solver"},
            "timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )

    def ask() -> Json:
        positive(module.params, "timeout")
        return dict(look(**module.params), changed=False)

    leave(module, attempt(ask, lambda: "Asking the router"))


if __name__ == "__main__":
    main()
