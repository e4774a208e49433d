#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold, renew and give back the rollout's lock of one worker, and keep the rollout's record there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Hold the rollout's lock of a worker, and keep its record
version_added: "1.0.0"
description:
  - Keeps one record in the directory of each worker. It says which rollout and which run holds the worker, what the
    worker came from, and what became of it. So the truth is on the workers, and any machine can go on.
  - The record is changed only under an exclusive C(flock), and replaced in one step. The modules that change a worker
    hold the same lock shared while they work, and refuse when the record names another run.
  - A rollout holds its fleet when it holds all workers that can be reached, and more than half of the fleet.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: Renewing always writes the time. Everything else, done twice, changes nothing the second time.
  platform:
    support: full
    platforms: posix
options:
  worker_dir:
    description: Directory of the worker with its links C(current) and C(previous).
    type: path
    required: true
  state:
    description:
      - V(held) takes the lock if it is free, expired, of a dead run or this run's own.
      - V(renewed) says that the run is alive; fails with C(lock_lost) when another run has the lock.
      - V(released) writes what became of the worker and gives the lock back; another run's is left alone. Without
        O(verdict) the rollout never began, and what the record held before it is there again.
      - V(requested) leaves O(request) for the run that holds the lock.
      - V(enrolled) writes the O(roster), outside of any rollout; fails with C(held) while one holds the lock.
    type: str
    choices: [held, renewed, released, requested, enrolled]
    default: held
  rollout_id:
    description: The rollout, kept over all its runs; owner of its drains. Needed for V(held).
    type: str
  run_id:
    description: This one run; the token that every other module shows. Needed but for V(requested) and V(enrolled).
    type: str
  kind:
    description: What the rollout is.
    type: str
    choices: [update, rollback, recover]
    default: update
  target:
    description: What was asked for, by which the rollout is known again.
    type: str
  from_version:
    description: Version that the worker came from.
    type: str
  from_release:
    description: Release that the worker came from, and that a rollback returns it to.
    type: str
  to_version:
    description: Version that the worker goes to.
    type: str
  to_release:
    description:
      - Release that the worker goes to. Without it the worker is locked, and its last rollout's record is left alone.
      - The same rollout to the same release keeps what the record says of where the worker came from.
    type: str
  reason:
    description: Why, shown to whoever meets the lock or the request.
    type: str
    default: ""
  job:
    description: Job of the automation platform, if there is one.
    type: str
  user:
    description: Who runs the rollout.
    type: str
  controller:
    description: Where it runs, with host, boot and process, so that its death can be proven.
    type: dict
  ttl:
    description: Seconds without a renewal after which the lock is free.
    type: float
    default: 1800.0
  dead_runs:
    description: Runs whose controller is proven dead; their lock is taken over at once.
    type: list
    elements: str
    default: []
  steal:
    description: Take the lock whoever holds it. Needs O(reason).
    type: bool
    default: false
  started_at:
    description: When the rollout began, by the controller's clock; rollouts are ordered by it. Default is the target's.
    type: str
  expected_seq:
    description:
      - The RV(record.seq) that the census saw, 0 for no record. Another one fails with C(changed), unless this very
        run has the lock already.
    type: int
  control_socket:
    description: The worker's control socket; when given, RV(census) says how the worker is.
    type: path
  control_timeout:
    description: Seconds for one answer of the control socket.
    type: float
    default: 5.0
  request:
    description: What to ask of the run that holds the lock; V(none) takes a request back.
    type: str
    choices: [pause, abort, none]
    default: none
  by:
    description: Who asks.
    type: str
    default: ""
  roster:
    description: For V(released) and V(enrolled), all workers of the fleet, by which a later run notices that some are
      missing.
    type: list
    elements: str
  outcome:
    description: For V(released) and V(renewed), what became of the worker; a later run goes by it.
    type: str
  cause:
    description: With O(outcome), what its failure is blamed on.
    type: str
  outcome_reason:
    description: With O(outcome), why in words.
    type: str
  stage:
    description: For V(held), the number of the stage in which the worker has its turn, from 1; for people.
    type: int
    version_added: "1.1.0"
  stages:
    description: For V(held), how many stages the rollout has.
    type: int
    version_added: "1.1.0"
  strategy:
    description: For V(held), the rollout's strategy, with which whoever goes on goes on.
    type: str
    version_added: "1.1.0"
  baseline:
    description: For V(renewed), the worker's books when the comparison of a canary began. It has no O(judgement) yet.
    type: dict
    version_added: "1.1.0"
  judgement:
    description: For V(renewed), what that comparison led to.
    type: dict
    version_added: "1.1.0"
  verdict:
    description: For V(released), the verdict document; the rollout is then over.
    type: dict
  history:
    description: Whether to keep O(verdict) in C(rollout/history), of which the last 20 stay.
    type: bool
    default: true
seealso:
  - module: solver.fleet.worker_info
"""

EXAMPLES = r"""
- name: Take the lock of a worker
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    rollout_id: rollout-42
    run_id: 5d1c9a3b7e20f114
    user: ada
    reason: update to 1.3.0

- name: Give it back
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    state: released
    rollout_id: rollout-42
    run_id: 5d1c9a3b7e20f114

- name: Ask the running rollout to pause
  solver.fleet.rollout_lock:
    worker_dir: /opt/solver/workers/w1
    state: requested
    request: pause
    by: ada
"""

RETURN = r"""
record:
  description: The record as it is now, V(none) where there is none.
  returned: always
  type: dict
  contains:
    seq:
      description: Rises with every change.
      type: int
      returned: always
ours:
  description: Whether O(run_id) holds the lock now.
  returned: always
  type: bool
holder:
  description: The lock as it is now, V(none) when it is free.
  returned: always
  type: dict
superseded:
  description: The rollout that was not over and was replaced by this one.
  returned: O(state=held)
  type: str
census:
  description: What M(solver.fleet.worker_info) would say of the worker.
  returned: when O(control_socket) is given
  type: dict
failure:
  description: Why it failed.
  type: dict
  returned: failure
  contains:
    code:
      description: One of V(held), V(changed), V(lock_lost), V(no_rollout), V(busy), V(bad_record), V(unwritable),
        V(no_space), V(bad_option).
      type: str
      returned: always
    cause:
      description:
        - What it is blamed on, V(release), V(drain), V(host) or V(unknown).
        - Always V(unknown) with the code V(crashed), a fault of the collection itself, which any call can meet.
      type: str
      returned: always
    message:
      description: The cause, and the option that mends it.
      type: str
      returned: always
    details:
      description: More about it, such as the holder.
      type: dict
      returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._job import leave
from ansible_collections.solver.fleet.plugins.module_utils._job_lock import RULES, LockJob, argument_spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, **RULES)
    # The folder is kept from others; the worker's directory, if it is made here, is for the service's own user too.
    os.umask(0o022)
    made = LockJob(module.params, module.check_mode, module.no_log_values.add).run()
    # Of a large fleet the verdict is megabytes, which each worker would send back.
    made["invocation"] = {"module_args": {name: own for name, own in module.params.items() if name != "verdict"}}
    leave(module, made)


if __name__ == "__main__":
    main()
