#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run several steps of a worker's turn in one process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_steps
short_description: Run several steps of a worker's turn in one process
version_added: "1.0.0"
description:
  - Internal to the collection. It may change or go in any release, and nothing about it is promised; use the modules
    that it runs.
  - Runs M(solver.fleet.worker_drain), M(solver.fleet.worker_release), M(solver.fleet.solve_check) and
    M(solver.fleet.rollout_lock) one after the other, as far as it gets. To start a module costs more than most of
    what these do.
  - It stops after the first step that failed, or that is not done and asks for another call.
  - What a step takes from the ones before it, such as the process that a switch has replaced, it takes from their
    results.
  - A step that fails does not fail this module. Only options that are wrong do, and then no step has run.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
attributes:
  check_mode:
    support: full
    details: Each step is run in check mode.
  diff_mode:
    support: partial
    details: The result of each step has its own difference.
  idempotent:
    support: partial
    details: As its steps are.
  platform:
    support: full
    platforms: posix
options:
  steps:
    description: The steps, in their order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the step, by which later ones find its result; C(module_utils/_carried.py) says which take what from
            which.
        type: str
        required: true
      module:
        description: Module that does it. Of V(worker_release) every state but V(staged) and V(absent) can be a step.
        type: str
        required: true
        choices: [rollout_lock, solve_check, worker_drain, worker_release]
      args:
        description: Options of that module, without those that come from the steps before it.
        type: dict
        default: {}
      goes_on:
        description: Whether the next step follows although this one failed, or is not done.
        type: bool
        default: false
  before:
    description:
      - Results of earlier calls for the same turn, by the names of their steps. Only the few fields that later steps go
        by are looked at.
    type: dict
    default: {}
  slice:
    description:
      - Seconds that this call waits at most, 0 to 25. Each step that waits gets what is left of it, and at least a
        second.
      - To switch a worker and to put it back into service are not cut off by it.
    type: float
    default: 25.0
seealso:
  - module: solver.fleet.worker_drain
  - module: solver.fleet.worker_release
  - module: solver.fleet.solve_check
  - module: solver.fleet.rollout_lock
"""

EXAMPLES = r"""
- name: Drain a worker and switch it
  solver.fleet.worker_steps:
    steps:
      - name: drain
        module: worker_drain
        args:
          control_socket: /run/solver/w1/control.sock
          owner: "{{ rollout_id }}"
      - name: switch
        module: worker_release
        args:
          state: active
          worker_name: w1
          worker_dir: /opt/solver/workers/w1
          base_dir: /opt/solver
          control_socket: /run/solver/w1/control.sock
          release: "{{ staged.release.id }}"
          owner: "{{ rollout_id }}"
          service:
            backend: systemd
            name: solver-worker@w1
  register: turn
"""

RETURN = r"""
done_steps:
  description:
    - The result of each step that ran, by its name, as its module would have returned it.
    - A step that failed has RV(ignore:failed), RV(ignore:msg) and RV(ignore:failure) in it.
    - RV(ignore:took_s) is how long each step took in this call, in seconds.
  returned: always
  type: dict
failure:
  description: Which option is wrong.
  returned: failure
  type: dict
  contains:
    code:
      description: V(bad_option), or V(crashed) for a fault of the collection.
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

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._job import leave
from ansible_collections.solver.fleet.plugins.module_utils._job_steps import StepsJob, argument_spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    # As its steps have it by themselves.
    os.umask(0o022)
    leave(module, StepsJob(module.params, module.check_mode, module.no_log_values.add).run())


if __name__ == "__main__":
    main()
