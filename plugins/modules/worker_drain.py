#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drain one worker, or put it back into service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_drain
short_description: Drain a worker, or put it back into service
version_added: "1.0.0"
description:
  - Asks a worker over its control socket to accept no more tasks, and waits until it may be stopped without
    losing one.
  - A drain belongs to its O(owner) and ends with its lease, so a worker is never left drained by accident.
  - One call waits at most O(wait_slice) seconds. When the drain is not done by then, the module succeeds with
    RV(done=false), and calling it again with the same O(owner) goes on with the same drain. Its deadline
    counts from
    the worker's own record of when the drain was requested.
  - A drain that misses its deadline is a failure, which returns the tasks that remain. Whatever a failing
    call had
    begun is given back.
author:
  - solver.fleet contributors (@solver-fleet)
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
  - solver.fleet.control
attributes:
  check_mode:
    support: full
    details: Predicts; RV(done) then assumes that the drain succeeds.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: Repeating the call renews the lease of the drain, which alone does not count as a change.
  platform:
    support: full
    platforms: posix
options:
  state:
    description:
      - V(drained) makes the worker accept nothing more and waits until it may be stopped.
      - V(active) ends the drain of O(owner) and waits until the worker serves.
    type: str
    choices: [drained, active]
    default: drained
  owner:
    description: Whose drain it is, usually the id of the rollout. Another owner's live drain is refused.
    type: str
    required: true
  reason:
    description: Why, shown by the worker to whoever asks. A repeated call changes it only when it is not
      empty.
    type: str
    default: ""
  mode:
    description:
      - V(complete) waits until no task is open.
      - V(handover) waits only until no call that submits a task is on the wire; the next process goes on
        with the
        open tasks.
    type: str
    choices: [complete, handover]
    default: complete
  timeout:
    description:
      - Seconds that the whole drain may take, over all calls. Then O(on_timeout) applies.
      - It should be the longest solve plus a buffer; the module warns when the worker's own solve times say
        otherwise.
      - With O(state=active) it bounds, together with O(wait_slice), the wait until the worker serves.
    type: float
    default: 120.0
  grace:
    description: Seconds in which a new drain still lets the worker accept, while routers already learn of it.
    type: float
    default: 5.0
  lease:
    description: Seconds until the drain expires unless it is renewed, 5 to 86400. Each call renews it once.
    type: float
    default: 900.0
  on_expire:
    description:
      - What the worker does when the lease runs out. V(resume) serves again, V(verify) serves again after
        it solved a
        probe of its own, V(hold) stays drained.
      - With V(hold) it also stays so where this drain fails, whatever O(on_timeout) says.
      - When not set, a new drain gets V(resume) and an existing one keeps its own.
    type: str
    choices: [resume, verify, hold]
  on_timeout:
    description:
      - What to do with a drain that is not done after O(timeout).
      - V(return_to_service) ends the drain and fails with the code C(drain_timeout).
      - V(handover) changes the mode of the drain to V(handover) and waits 30 s at most; then it goes on as
        V(return_to_service).
      - V(force) succeeds with RV(forced=true) and the tasks that remain, and leaves the worker drained.
    type: str
    choices: [handover, return_to_service, force]
    default: return_to_service
  accept_loss:
    description: Must be V(true) for O(on_timeout=force).
    type: bool
    default: false
  steal:
    description: Take over, or end, the live drain of another owner.
    type: bool
    default: false
  worker_dir:
    description:
      - Directory of the worker, where the rollout's record lies. Needed with O(run_id).
      - When given, O(timeout) counts over several calls by a clock that is never stepped.
    type: path
  run_id:
    description:
      - The run that must hold the rollout's lock of this worker, see M(solver.fleet.rollout_lock).
      - When another run holds it, or nobody, the module changes nothing and fails with the code C(fenced).
      - Without it the lock is not looked at.
      - O(timeout) then counts from the first call of this run, also for a drain that an earlier run has left.
    type: str
  wait_slice:
    description:
      - Seconds that one call waits at most, 0 to 25, and never more than half of O(lease).
      - V(0) asks for the drain and returns at once, to drain several workers together.
    type: float
    default: 25.0
  absent_ok:
    description:
      - With O(state=drained), a worker that is stopped or dead counts as drained, and so does one in state
        C(failed).
      - Otherwise it is a failure.
    type: bool
    default: false
  hung_ok:
    description:
      - With O(state=drained), a process that gives no answer, or is starting or stopping as long as the call waits,
        counts as drained by force, RV(forced), and can then only be ended.
      - Its tasks go on in the next process. One whose submission was on the wire may be billed without an answer, so
        it needs O(accept_loss=true).
    type: bool
    default: false
seealso:
  - module: solver.fleet.worker_info
  - module: solver.fleet.solve_check
"""

EXAMPLES = r"""
- name: Drain a worker
  solver.fleet.worker_drain:
    control_socket: /run/solver/w1/control.sock
    owner: "{{ rollout_id }}"
    reason: update to 1.3.0
    timeout: 120
    on_timeout: handover
  register: drain
  until: drain is failed or drain.done
  retries: 8
  delay: 0

- name: Put the worker back into service
  solver.fleet.worker_drain:
    control_socket: /run/solver/w1/control.sock
    owner: "{{ rollout_id }}"
    state: active
"""

RETURN = r"""
done:
  description: Whether the state is reached. V(false) asks for another call.
  returned: always
  type: bool
began:
  description: Whether this call began the drain.
  returned: always
  type: bool
forced:
  description: Whether the deadline passed and O(on_timeout=force) goes on in spite of RV(remaining).
  returned: always
  type: bool
fallback:
  description: Whether the drain fell back to the mode V(handover) at its deadline.
  returned: always
  type: bool
gave_back:
  description: Whether a failure ended the drain, so that the worker serves again.
  returned: always
  type: bool
finding:
  description: V(answering), or why the worker could not be asked, as in M(solver.fleet.worker_info).
  returned: always
  type: str
open_at_drain:
  description: Open tasks when the drain began; V(none) in the calls that go on with it at a worker that does not tell.
  returned: always
  type: int
elapsed_s:
  description: Seconds since the drain was requested.
  returned: always
  type: float
remaining:
  description: Tasks that still depend on the worker; V(none) when unknown.
  returned: always
  type: dict
  sample:
    accepted: 0
    oldest_age_s: 41.2
    open: 63
    polling: 63
    submitting: 0
    unfetched: 4
drain:
  description: The drain as the worker describes it; V(none) without one.
  returned: always
  type: dict
worker:
  description: The status document of the worker; V(none) when it did not answer.
  returned: always
  type: dict
host_clock:
  description: A reading of the target's clock that is never stepped, for
    O(solver.fleet.solve_check#module:since).
  returned: always
  type: dict
failure:
  description: The failure for machines.
  returned: failure
  type: dict
  contains:
    code:
      description:
        - Stable code of the cause.
        - Among them are C(drain_timeout), C(foreign_drain), C(drain_lost), C(feature_missing),
          C(worker_failed),
          C(not_running), C(bad_option), C(bad_control_socket), and the findings C(stopped), C(dead),
          C(denied),
          C(hung) and C(foreign).
      type: str
      returned: always
      sample: drain_timeout
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
      description: More about the cause, for example RV(ignore:remaining), or the C(owner) of a foreign drain.
      type: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._job import leave
from ansible_collections.solver.fleet.plugins.module_utils._job_drain import RULES, DrainJob, argument_spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, **RULES)
    leave(module, DrainJob(module.params, module.check_mode, module.no_log_values.add).run())


if __name__ == "__main__":
    main()
