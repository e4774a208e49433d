#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that a worker really solves, and say whose fault it is when it does not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: solve_check
short_description: Check that a worker, and its provider, really solve
version_added: "1.0.0"
description:
  - Verifies a worker after a change with its state, version, process and books, and by a real solve through
    the worker.
  - Verifies the provider without any worker, by its balance and by a direct solve. Delegate these two
    checks to the
    controller; they need the Python library requests there.
  - A failure says in RV(failure.details) whose fault it is.
  - One call waits at most O(wait_slice) seconds for a worker. When the checks are not done by then, the
    module succeeds
    with RV(done=false); call it again with the same options. It goes on with the same probe, which is never
    billed
    twice, as long as O(request_id) and O(since) stay the same.
author:
  - solver.fleet contributors (@solver-fleet)
requirements:
  - requests, for the checks V(balance) and V(provider) only
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
  - solver.fleet.control
attributes:
  check_mode:
    support: full
    details: Checks nothing, because there may be nothing new to check yet, and because a solve costs money.
  diff_mode:
    support: N/A
    details: Nothing is changed.
  idempotent:
    support: N/A
    details: Nothing is changed. A probe and a direct solve cost money.
  platform:
    support: full
    platforms: posix
options:
  control_socket:
    description:
      - Absolute path of the worker's control socket on the target, at most 107 bytes.
      - Required for the checks V(worker) and V(probe).
    type: path
    required: false
  checks:
    description:
      - What to check, always in this order.
      - V(worker) waits until the worker has settled and judges its state, version, process and books.
      - V(probe) does the same and then lets the worker solve a real task.
      - V(balance) asks the provider for the balance of the account.
      - V(provider) solves a task directly at the provider.
    type: list
    elements: str
    choices: [worker, probe, balance, provider]
    default: [worker, probe]
  expect_version:
    description: Version that the worker must run.
    type: str
  expect_release:
    description: Id of the release that the worker must run.
    type: str
  expect_boot_id:
    description: The process must still be this one.
    type: str
  expect_boot_id_not:
    description: The process must no longer be this one; the check waits until another one answers.
    type: str
  expect_journal_id:
    description: The worker must use this journal.
    type: str
  expect_state:
    description: States in which the worker is good.
    type: list
    elements: str
    default: [running, drained]
  totals_before:
    description: Earlier totals of the same worker; none may have gone back.
    type: dict
  soak:
    description: Seconds that the worker must have been in its good state, watched with O(checks).
    type: float
    default: 0.0
  soak_since:
    description:
      - RV(host_clock) of the module on the same target that put the worker into service, from which O(soak) then
        counts over all calls.
      - Without it O(soak) counts from the date at which the worker says that it came into its state. A wall clock
        that is set meanwhile makes that wrong.
    type: dict
  request_id:
    description:
      - Names the probe, so that repeated calls go on with it. The module makes the process and O(since)
        part of it, and
        adds a number for each further try.
      - Without it each call makes a probe of its own, and waits for it beyond O(wait_slice).
    type: str
  since:
    description:
      - RV(host_clock) of an earlier module on the same target, from which O(deadline) then counts over all
        calls.
      - Without it, or after the target was booted, the deadline counts from the start of each call.
    type: dict
  probe_task:
    description: Fields of in.php of the task to solve; by default an image with a known answer.
    type: dict
  probe_expect:
    description: The answer that the solve must give.
    type: str
  probe_timeout:
    description: Seconds that one solve may take.
    type: float
    default: 90.0
  retries:
    description: How often the probe is tried in all.
    type: int
    default: 3
  interval:
    description: Seconds between two tries of the probe.
    type: float
    default: 10.0
  deadline:
    description: Seconds that the checks of the worker may take in all, without O(soak).
    type: float
    default: 300.0
  wait_slice:
    description: Seconds that one call waits at most for the worker, 0 to 25.
    type: float
    default: 25.0
  service:
    description:
      - The service that runs the worker, as in O(solver.fleet.worker_release#module:service).
      - When given, a process that ends fails the check at once, with the last lines of its log.
    type: dict
  provider_url:
    description: Address of the provider.
    type: str
    default: https://ocr.captchaai.com
  api_key_file:
    description:
      - File with the API key of the provider, on the host where the module runs.
      - Required for the checks V(balance) and V(provider).
    type: path
  min_balance:
    description: The least balance that is enough.
    type: float
    default: 0.0
  require_requests:
    description: Whether it is a failure when the Python library requests is missing. Otherwise such checks
      are skipped.
    type: bool
    default: true
seealso:
  - module: solver.fleet.worker_info
  - module: solver.fleet.worker_drain
"""

EXAMPLES = r"""
- name: Verify a worker after its update
  solver.fleet.solve_check:
    control_socket: /run/solver/w1/control.sock
    expect_version: 1.3.0
    expect_boot_id_not: "{{ switch.boot_id_before }}"
    totals_before: "{{ switch.totals_before }}"
    request_id: "{{ rollout_id }}-w1"
    since: "{{ drain.host_clock }}"
  register: verify
  until: verify is failed or verify.done
  retries: 13
  delay: 0

- name: Check the account and the provider from the controller
  solver.fleet.solve_check:
    checks: [balance, provider]
    api_key_file: /etc/solver/provider.key
    min_balance: 1
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
done:
  description: Whether all checks have passed. V(false) asks for another call.
  returned: always
  type: bool
passed:
  description: The checks that have passed.
  returned: always
  type: list
  elements: str
  sample: [worker, probe]
skipped_checks:
  description: The checks that were skipped, in check mode or because the library requests is missing.
  returned: always
  type: list
  elements: str
pending:
  description: What the check still waits for, V(none) when it waits for nothing.
  returned: always
  type: str
finding:
  description: V(answering), or why the worker could not be asked, as in M(solver.fleet.worker_info).
  returned: when a worker is checked
  type: str
attempts:
  description: Probes that were answered.
  returned: when a worker is checked
  type: int
probe:
  description: The last answer to a probe, V(none) without one.
  returned: when a worker is checked
  type: dict
  sample:
    elapsed_s: 12.3
    error: null
    outcome: succeeded
worker:
  description: The status document of the worker, V(none) when it does not answer.
  returned: when a worker is checked
  type: dict
elapsed_s:
  description: Seconds since O(since), or since the start of the call.
  returned: when a worker is checked
  type: float
balance:
  description: The balance as the provider says it.
  returned: when the check V(balance) was made
  type: str
  sample: "12.34"
solve_s:
  description: Seconds that the direct solve took.
  returned: when the check V(provider) was made
  type: float
host_clock:
  description: A reading of the target's clock that is never stepped, for O(since).
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
        - Among them are C(worker_exited), C(worker_failed), C(wrong_version), C(wrong_release),
          C(wrong_journal),
          C(unexpected_state), C(totals_wrong), C(deadline), C(probe_failed), C(probe_refused),
          C(low_balance),
          C(provider_unreachable), C(bad_option), C(bad_control_socket) and C(bad_api_key_file).
      type: str
      returned: always
      sample: probe_failed
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
      contains:
        fault:
          description: Whose fault it is, V(worker), V(account), V(provider), V(task) or V(network).
          type: str
          returned: when a check failed
        checking:
          description: V(probe) when the deadline ended a probe, which is no proof against the worker.
          type: str
          returned: when a deadline ended a probe
        errors:
          description: Code and class of the error of each probe that failed, in the order of time.
          type: list
          elements: dict
          returned: when a probe failed, or a deadline ended one
        log:
          description: The last lines of the worker's log.
          type: list
          elements: str
          returned: when a check of the worker failed and O(service) names its log
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._job import leave
from ansible_collections.solver.fleet.plugins.module_utils._job_check import RULES, CheckJob, argument_spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, **RULES)
    leave(module, CheckJob(module.params, module.check_mode, module.no_log_values.add).run())


if __name__ == "__main__":
    main()
