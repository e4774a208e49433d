#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a worker's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_look
short_description: Look whether a worker can live on a machine
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - Internal to the collection, for its playbook C(doctor.yml). It may change or go in any release, and nothing about it
    is promised.
  - Never changes anything.
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
  base_dir:
    description: Where releases are, or will be.
    type: path
    required: true
  worker_python:
    description: The interpreter that is wanted for the worker. Without it the first that fits.
    type: str
  backend:
    description: The kind of service manager.
    type: str
    required: true
  secrets:
    description: Files that hold secrets. Nothing of what is in them is read.
    type: list
    elements: path
    default: []
  data_address:
    description: Where the worker answers for its data API, as C(host:port).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Look at the machine
  solver.fleet.host_look:
    base_dir: /opt/solver
    backend: systemd
    data_address: 127.0.0.1:8081
  register: machine
"""

RETURN = r"""
machine:
  description: What was found.
  returned: success
  type: dict
failure:
  description: The failure for machines.
  returned: failure
  type: dict
  contains:
    code:
      description: Always V(crashed), a fault of the collection itself.
      type: str
      returned: always
    cause:
      description: Always V(unknown).
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
from ansible_collections.solver.fleet.plugins.module_utils._host_look import host_look
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt, leave


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_dir": {"type": "path", "required": True},
            "worker_python": {"type": "str"},
            "backend": {"type": "str", "required": True},
            "secrets": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "data_address": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )

    def ask() -> Json:
        return {"machine": host_look(**module.params), "changed": False}

    leave(module, attempt(ask, lambda: "Looking at the machine"))


if __name__ == "__main__":
    main()
