#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_release
short_description: Stage, activate and remove releases of a worker
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - A release is a package together with the rendered configuration of one worker, and under systemd its unit and its
    secrets. Its id is made of the version and both digests, so equal ids mean equal content.
  - V(staged) builds the release beside the running one and tries it, V(active) switches the worker to it in one
    step and restarts the process, V(absent) removes it.
  - Workers of one machine share O(base_dir). Staging takes a lock there, so that two of them may stage at once.
options:
  state:
    description:
      - V(staged), the release is on the host and its program has checked the configuration and the worker's journal.
        What serves is not touched. The link C(staged) names it as long as it waits.
      - V(active), the worker's link C(current) points to the release, and with O(restart) the process is a new one.
        A worker that answers must be held by the drain of O(owner) and be safe to stop; otherwise nothing is touched.
        Whether the new process is well is for M(solver.fleet.solve_check) to say.
      - V(standby), a second process of the worker runs O(release) in its slot, O(service.standby), answers and waits to
        be probed there. It is kept alive by O(lease). Another one that stands there makes room.
      - V(settled), a worker that serves from its slot, after a switch by V(standby), serves from its own service
        again, by a process of the same release that takes over there.
      - V(dropped), nothing stands by. The worker is not touched.
      - V(absent), the release is gone. A release that some worker links is never removed. Without O(release) only
        what exceeds O(keep) is removed.
    type: str
    choices: [staged, standby, active, settled, dropped, absent]
    default: staged
  worker_name:
    description: The worker's name.
    type: str
    required: true
  worker_dir:
    description: The worker's own directory, with its links C(current) and C(previous). It must exist for V(active).
    type: path
    required: true
  base_dir:
    description: The directory for the environments and releases of all workers of this machine.
    type: path
    required: true
  package:
    description:
      - The path of a wheel on the host, or a requirement such as V(solver-worker==1.3.0).
      - Without it, V(solver-worker) in O(version); without both, the package of the worker's current release.
    type: str
  version:
    description: The version that the package must have.
    type: str
  sha256:
    description: The digest that the wheel must have.
    type: str
  wheelhouse:
    description:
      - A directory of wheels on the host, as M(solver.fleet.wheelhouse) builds it. Nothing else is used then, no index
        and no configuration of pip.
    type: path
  index_url:
    description: The package index, instead of the one that pip is configured for.
    type: str
  extra_index_urls:
    description: Further package indexes.
    type: list
    elements: str
    default: []
  config:
    description: The rendered configuration of the worker, as TOML. Required for V(staged).
    type: str
  unit:
    description:
      - For a worker under systemd, the unit that runs it. It becomes part of the release, so it goes forward and back
        with it. systemd has checked it before the release is complete.
      - The unit that systemd reads is a link to this file by way of C(current), see the role C(solver.fleet.worker).
    type: dict
    suboptions:
      name:
        description: Its file name.
        type: str
        required: true
      content:
        description: Its text.
        type: str
        required: true
  credentials:
    description:
      - Names of secrets, and the files on the host that hold them. They are copied into the release, readable by root
        alone, and a changed secret makes another release.
      - The unit hands them over with C(LoadCredential=). Where systemd is older than 247, they belong to O(run_as).
    type: dict
    default: {}
  run_as:
    description: The user that the worker runs as. The staged program is tried as this user where the module is root.
    type: str
  python:
    description:
      - The interpreter to make environments with. The role V(solver.fleet.worker) sets it from C(solver_worker_python).
      - By default the one that runs this module if it is at least 3.11, else the newest in the search path.
    type: path
  release:
    description: Id of the release, for V(active) and V(absent).
    type: str
  previous:
    description:
      - With V(active), go back to the release that the link C(previous) names. The links change places, so
        the same call once more would go forth again; name O(release) where that matters.
    type: bool
    default: false
  restart:
    description: Whether V(active) restarts the process; it needs O(service) for that.
    type: bool
    default: true
  force_restart:
    description: >-
      Restart also a worker that hangs, or is held but not safe to stop. Tasks may be lost or become uncertain by this.
      A process that does not end when it is stopped is killed; the backend V(command) needs a O(service.status) that
      prints C(pid N) for that.
    type: bool
    default: false
  restart_timeout:
    description: >-
      Seconds to wait for another process after a restart, and of a standby until it answers. What the process says of
      itself afterwards is for M(solver.fleet.solve_check).
    type: float
    default: 30.0
  service:
    description: The service that runs the worker.
    type: dict
    suboptions:
      backend:
        description: The service manager.
        type: str
        choices: [supervisor, systemd, command]
        required: true
      name:
        description: Name of the program or unit.
        type: str
        required: true
      config:
        description: For V(supervisor), the configuration file that names its socket.
        type: path
      socket:
        description: For V(supervisor), its socket, where there is no O(service.config).
        type: path
      scope:
        description: For V(systemd), the manager of the system or of the calling user.
        type: str
        choices: [system, user]
        default: system
      start:
        description: For V(command), the command that starts the service, as a list of arguments.
        type: list
        elements: str
      stop:
        description: For V(command), the command that stops the service and waits for its end.
        type: list
        elements: str
      status:
        description:
          - For V(command), the command that asks for the state. Its exit status is 0 for running, 3 for stopped, 1 or 2
            for failed; the process id may follow the word C(pid) in its output.
        type: list
        elements: str
      log_file:
        description: Where the service logs; the end of it is shown with a failure.
        type: path
      timeout:
        description: Seconds that a stop may take.
        type: float
        default: 60.0
      standby:
        description:
          - The slot, a second service of the worker that runs what the link C(standby) names, with C(order) as
            its C(--standby). It is like the worker's own but for what stands here.
        type: dict
        version_added: "1.1.0"
        suboptions:
          name:
            description: Its name.
            type: str
            required: true
          socket:
            description: Control socket of a standby, beside the worker's.
            type: path
            required: true
          order:
            description: The file that makes a standby of the process in the slot.
            type: path
            required: true
          home_order:
            description: The file that makes a standby of the process in the worker's own service.
            type: path
            required: true
          start:
            description: As above.
            type: list
            elements: str
          stop:
            description: As above.
            type: list
            elements: str
          status:
            description: As above.
            type: list
            elements: str
          log_file:
            description: As above.
            type: path
  switch:
    description:
      - For V(active), V(in_place) restarts the worker's process. V(standby) has the standby of O(release) take over,
        which must have solved a probe; no drain is needed, and no moment passes in which nobody serves. Where it does
        not take over, all is as it was.
    type: str
    choices: [in_place, standby]
    default: in_place
    version_added: "1.1.0"
  take_over_timeout:
    description: Seconds that a standby may take to take over, from 1 to 300.
    type: float
    default: 30.0
    version_added: "1.1.0"
  reason:
    description: Why there is a standby, as its status says.
    type: str
    default: ""
    version_added: "1.1.0"
  owner:
    description:
      - Owner of the drain that holds the worker and of its standby, the rollout's id. Required for all but V(staged)
        and V(absent).
    type: str
  rollout_id:
    description: Which rollout staged the release, for its metadata.
    type: str
  run_id:
    description:
      - For O(state=active), the run that must hold the rollout's lock of this worker, see
        M(solver.fleet.rollout_lock).
      - When another run holds it, or nobody, the module changes nothing and fails with the code C(fenced).
      - Without it the lock is not looked at.
    type: str
  lease:
    description: Lease in seconds that the drain is renewed with before the switch, and that a standby lives for.
    type: float
    default: 900.0
  on_expire:
    description:
      - What follows when the lease ends after the switch. With V(verify) the worker serves once it has solved a probe
        of its own.
      - With V(hold) it stays drained. So does one that cannot verify itself.
    type: str
    choices: [verify, hold]
    default: verify
    version_added: "1.1.0"
  keep:
    description: How many releases of this worker to keep, beside those that are linked.
    type: int
    default: 5
  min_free_mb:
    description: How many megabytes must be free at O(base_dir) before something is built; V(0) to build anyway.
    type: int
    default: 200
  deploy_timeout:
    description: Seconds that staging may take, and seconds to wait for another staging on the same machine.
    type: int
    default: 300
  worker_dirs_glob:
    description:
      - Pattern of the directories of all workers of this machine; what their links name is never removed.
      - By default C(workers/*) in O(base_dir). O(worker_dir) always counts.
    type: str
  contents:
    description:
      - With O(state=staged), return RV(contents) instead of a diff, for one diff over many workers; see
        M(solver.fleet.fleet_changes).
    type: bool
    default: false
    version_added: "1.1.0"
extends_documentation_fragment:
  - solver.fleet.control
  - solver.fleet.attributes
  - solver.fleet.attributes.actiongroup_worker
attributes:
  check_mode:
    support: full
    details:
      - A release that exists is tried in check mode too, since that only reads.
      - With O(state=active), whether the drain would allow the switch is not asked, because a plan has not drained yet.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - Not with O(previous=true).
  platform:
    support: full
    platforms: posix
notes:
  - The configuration is public on the host; it names files of secrets, it must not hold secrets.
seealso:
  - module: solver.fleet.wheelhouse
  - module: solver.fleet.worker_drain
  - module: solver.fleet.solve_check
"""

EXAMPLES = r"""
- name: Build the release beside the running one
  solver.fleet.worker_release:
    state: staged
    worker_name: w1
    worker_dir: /opt/solver/workers/w1
    base_dir: /opt/solver
    control_socket: /run/solver/w1/control.sock
    version: 1.3.0
    wheelhouse: /opt/solver/wheelhouse
    config: "{{ lookup('ansible.builtin.template', 'config.toml.j2') }}"
    rollout_id: "{{ rollout_id }}"
  register: staged

- name: Switch the drained worker to it
  solver.fleet.worker_release:
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

- name: Go back to where it came from
  solver.fleet.worker_release:
    state: active
    previous: true
    worker_name: w1
    worker_dir: /opt/solver/workers/w1
    base_dir: /opt/solver
    control_socket: /run/solver/w1/control.sock
    owner: "{{ rollout_id }}"
    service:
      backend: systemd
      name: solver-worker@w1
"""

RETURN = r"""
release:
  description: The metadata of the release; in check mode what it would be.
  type: dict
  returned: when it is known
  contains:
    id:
      description: Its id.
      type: str
    version:
      description: The version of its package.
      type: str
    package_digest:
      description: The sha256 of its wheel.
      type: str
    config_digest:
      description: The sha256 of its configuration.
      type: str
    created_at:
      description: When it was staged.
      type: str
    rollout_id:
      description: Which rollout staged it.
      type: str
    from:
      description: The release that the worker had then.
      type: str
    worker:
      description: The worker that it is for.
      type: str
    schema:
      description: The format of this document.
      type: str
  sample:
    schema: solver.release/1
    id: 1.3.0-89c3c0eb-3f9a1204
    version: 1.3.0
standby:
  description: The status document of the standby; V(none) in check mode where there is none.
  type: dict
  returned: O(state=standby)
staged:
  description: Whether the release is on the host, complete and tried.
  type: bool
  returned: O(state=staged)
contents:
  description: Version, configuration and unit of the current release and of the staged one, and the packages of both.
  type: dict
  returned: O(state=staged) with O(contents)
  contains:
    before:
      description: Lines of the current release.
      type: list
      elements: str
    after:
      description: Lines of the staged one.
      type: list
      elements: str
    packages_before:
      description: Packages of the current release, each with its version.
      type: list
      elements: str
    packages_after:
      description: Those of the staged one; V(none) where its environment is not built yet.
      type: list
      elements: str
check:
  description: What the staged program said about its configuration and the journal.
  type: dict
  returned: O(state=staged), when it was run
env:
  description: The environment, if it was built this time.
  type: str
  returned: O(state=staged)
pruned:
  description: The names of removed releases and environments.
  type: dict
  returned: O(state=staged) and O(state=absent)
current:
  description: The release that the link C(current) names; V(none) without one.
  type: str
  returned: when the host was looked at
previous:
  description: The release that the link C(previous) names; V(none) without one.
  type: str
  returned: when the host was looked at
at_target:
  description: Whether the link C(current) names the release.
  type: bool
  returned: O(state=staged) and O(state=active)
running_release:
  description: The release that the answering process is; V(none) if none answers.
  type: str
  returned: O(state=staged) and O(state=active)
from:
  description: The release that was current before.
  type: str
  returned: O(state=active)
to:
  description: The release to be current.
  type: str
  returned: O(state=active)
switched:
  description: Whether the link was changed.
  type: bool
  returned: O(state=active)
restarted:
  description: Whether the process was told to start anew.
  type: bool
  returned: O(state=active)
state_before:
  description: The state of the worker before, or the finding where it did not answer.
  type: str
  returned: O(state=active)
boot_id_before:
  description: The process before; V(none) if it did not answer.
  type: str
  returned: O(state=active)
pid_before:
  description: The process id before.
  type: int
  returned: O(state=active)
totals_before:
  description: The totals of the journal just before the switch.
  type: dict
  returned: O(state=active)
journal_id:
  description: The journal that these totals are of.
  type: str
  returned: O(state=active)
boot_id:
  description: The process after the restart; V(none) as long as it does not answer.
  type: str
  returned: O(state=active), after a restart
pid:
  description: The process id after the restart.
  type: int
  returned: O(state=active), after a restart
worker_state:
  description: The state of the worker after the restart, or the finding where it did not answer.
  type: str
  returned: O(state=active), after a restart
service:
  description: What the service manager said last.
  type: dict
  returned: O(state=active), after a restart
failure:
  description: Why it failed; what was done until then stands beside it.
  type: dict
  returned: failure
  contains:
    code:
      description:
        - A stable name of the cause.
        - V(staged) knows V(no_version), V(unknown_version), V(no_package), V(not_a_wheel), V(wrong_digest),
          V(version_mismatch), V(no_space), V(no_python), V(pip_failed), V(release_invalid), V(config_refused),
          V(bad_credential), V(unit_refused), V(no_user), V(no_systemd),
          V(locked), V(timeout), V(unwritable).
        - V(active) knows V(no_release), V(no_previous), V(lease_lost), V(foreign_drain), V(not_safe_to_stop), the
          findings V(hung), V(denied) and V(foreign), V(fenced), V(bad_record),
          V(cannot_start), V(reload_failed), V(service_failed), V(restart_timeout), V(stop_timeout); with
          O(switch=standby) also V(worker_failed), V(not_running) and V(feature_missing).
        - V(standby) knows V(not_running), V(cannot_start), V(held) and V(unwritable).
        - V(absent) knows V(release_linked).
      type: str
    cause:
      description:
        - What it is blamed on, V(release), V(drain), V(host) or V(unknown).
        - Always V(unknown) with the code V(crashed), a fault of the collection itself, which any call can meet.
      type: str
    message:
      description: The cause, and the option that mends it.
      type: str
    details:
      description: >-
        More about it, such as RV(ignore:output) of the program, or RV(ignore:log), the end of the service's log.
      type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.solver.fleet.plugins.module_utils._job import leave
from ansible_collections.solver.fleet.plugins.module_utils._job_release import RULES, ReleaseJob, argument_spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, **RULES)
    # The service's own user must be able to read what this one builds.
    os.umask(0o022)
    leave(module, ReleaseJob(module.params, module.check_mode, module.no_log_values.add).run())


if __name__ == "__main__":
    main()
