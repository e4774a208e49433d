#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask one worker how it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_info
short_description: Ask a worker how it is
version_added: "1.0.0"
description:
  - Reads the status document of one worker over its control socket, and never changes anything.
  - A worker that cannot be asked is not a failure but a finding, and the ways are told apart in RV(finding).
    The module fails only where O(control_socket) or O(control_timeout) can never be right.
  - An answer is bounded in time and in size, so a broken worker cannot hold the play.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
  - solver.fleet.control
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
  worker_dir:
    description:
      - Directory of the worker with its links C(current) and C(previous).
      - When given, RV(releases) tells what they point to, also for a worker that does not run.
    type: path
  history:
    description: With O(worker_dir), how many of the newest verdicts that are kept there RV(history) tells of.
    type: int
    default: 0
  verdict_of:
    description: With O(worker_dir), the C(run_id) of a run whose whole verdict is returned in RV(verdict).
    type: str
    version_added: "1.1.0"
  service:
    description:
      - The service that runs the worker, as in O(solver.fleet.worker_release#module:service).
      - When given, RV(service_problem) tells whether it could be started again, and RV(standby_problem) whether there
        is room for a standby.
    type: dict
  standby_socket:
    description:
      - Control socket of the worker's standby, a second process that may take over from it.
      - When given, RV(standby) tells what is there. That there is none is no failure.
    type: path
    version_added: "1.1.0"
seealso:
  - module: solver.fleet.worker_drain
  - module: solver.fleet.solve_check
"""

EXAMPLES = r"""
- name: Ask a worker how it is
  solver.fleet.worker_info:
    control_socket: /run/solver/w1/control.sock
    worker_dir: /opt/solver/workers/w1
  register: census

- name: Say what was found
  ansible.builtin.debug:
    msg: "{{ census.finding }}: {{ census.message }}"
"""

RETURN = r"""
finding:
  description:
    - V(answering) means that a worker answered, V(stopped) that there is no socket, V(dead) that a socket
      was left
      over by a process that is gone, V(denied) that this user may not connect, V(hung) that no complete
      answer came
      within O(control_timeout), V(foreign) that something answers which is not a worker of this API.
  returned: always, except when an option is wrong
  type: str
  sample: answering
message:
  description: The finding in words, with the remedy where there is one.
  returned: always, except when an option is wrong
  type: str
  sample: "worker 'w1' is running, version 1.2.0, 3 open tasks"
worker:
  description: The status document of the worker; V(none) unless RV(finding) is V(answering).
  returned: always, except when an option is wrong
  type: dict
  sample:
    state: running
    instance:
      name: w1
      version: 1.2.0
standby:
  description: What answers at O(standby_socket), in the same words.
  returned: when O(standby_socket) is given
  type: dict
  contains:
    finding:
      description: As RV(finding); V(stopped) where there is no standby.
      type: str
      returned: always
    message:
      description: The finding in words.
      type: str
      returned: always
    worker:
      description: The status document of the standby; V(none) unless it answers.
      type: dict
      returned: always
in_slot:
  description: Whether the worker runs in the slot of its standby, because nobody has brought it home after a switch.
  returned: when O(service) has a slot, C(standby)
  type: bool
standby_problem:
  description: Why no standby could be raised beside the worker, in its slot; V(none) if nothing speaks against it.
  returned: when O(service) has a slot, C(standby)
  type: str
standby_memory:
  description: >-
    The memory that a standby would need; V(none) where one stands by already, where the worker does not answer, and
    where its host does not say.
  returned: when O(service) has a slot, C(standby)
  type: dict
  contains:
    needs:
      description: The bytes that the process of the worker has in memory.
      type: int
      returned: always
    spare:
      description: The bytes that the host has available.
      type: int
      returned: always
releases:
  description: What the links of the worker point to.
  returned: when O(worker_dir) is given
  type: dict
  contains:
    current:
      description: The C(release.json) of the release that the next start runs, V(none) without one.
      type: dict
      returned: always
    previous:
      description: The C(release.json) of the release before that, V(none) without one.
      type: dict
      returned: always
    staged:
      description: The C(release.json) of a release that waits to be switched to, V(none) without one.
      type: dict
      returned: always
service_problem:
  description:
    - Why the service would not start again if its process ended now, V(none) if nothing speaks against it.
    - Its unit was disabled or masked while it ran, its manager shuts down, or its start command is gone.
  returned: when O(service) is given
  type: str
release_problem:
  description:
    - Why the current release could not be started again, V(none) if nothing speaks against it.
    - Its interpreter is gone, or has become another version. To stage the release again mends it.
  returned: when O(worker_dir) is given
  type: str
rollout:
  description:
    - The rollout's record of this worker, V(none) if there was no rollout yet.
    - It names the last rollout with what the worker came from, the lock and its holder, and the fleet's roster.
  returned: when O(worker_dir) is given
  type: dict
lock_state:
  description:
    - Whether a rollout holds the worker, V(free), V(held) or V(expired), by the clocks of the target.
    - V(unknown) where the record cannot be read, as RV(record_problem) says.
  returned: when O(worker_dir) is given
  type: str
record_problem:
  description: Why the record cannot be read.
  returned: when the record cannot be read
  type: str
history:
  description: The heads of the verdicts that the worker keeps, the newest first.
  returned: when O(worker_dir) is given and O(history) is above 0
  type: list
  elements: dict
  contains:
    rollout_id:
      description:
        - The rollout; also C(run_id), C(kind), C(target), C(verdict), C(started_at), C(ended_at), C(reasons), C(who)
          ran it, the operator's C(reason), and the versions that the workers came C(from).
      type: str
      returned: always
verdict:
  description: The verdict of the run that O(verdict_of) names, V(none) where it is not kept.
  returned: when O(verdict_of) and O(worker_dir) are given
  type: dict
host_clock:
  description: A reading of the target's clock that is never stepped, for
    O(solver.fleet.solve_check#module:since).
  returned: always, except when an option is wrong
  type: dict
  sample:
    host_boot_id: 2f6c0f2e-0d5e-4a53-9a1b-9f6a4a1f5f10
    uptime_s: 86400.5
failure:
  description: The failure for machines.
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the cause.
      type: str
      returned: always
      sample: bad_control_socket
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
from ansible_collections.solver.fleet.plugins.module_utils._census import census
from ansible_collections.solver.fleet.plugins.module_utils._errors import Json
from ansible_collections.solver.fleet.plugins.module_utils._job import attempt, leave
from ansible_collections.solver.fleet.plugins.module_utils._result import control_argument_spec, positive


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(control_argument_spec(), worker_dir={"type": "path"}, history={"type": "int", "default": 0},
                           verdict_of={"type": "str"}, service={"type": "dict"}, standby_socket={"type": "path"}),
        supports_check_mode=True,
    )

    def ask() -> Json:
        positive(module.params, "control_timeout")
        return dict(census(**module.params), changed=False)

    leave(module, attempt(ask, lambda: "Asking the worker"))


if __name__ == "__main__":
    main()
