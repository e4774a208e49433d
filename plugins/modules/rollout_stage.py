#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_stage
short_description: Stage the release of a rollout on all its workers at once
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Brings the wheels to each worker's host and builds the release there, beside the one that runs, as many at once as
    C(forks) allows and at most five over connections to one machine. Nothing that serves changes.
  - Never fails for what a host says; M(solver.fleet.rollout_plan) refuses with the reasons of all.
  - In diff mode it returns what the releases change, once for all workers that change alike.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  workers:
    description: The workers that answer, by their inventory names.
    type: list
    elements: str
    required: true
  wheels:
    description: The result of M(solver.fleet.wheelhouse). Where that failed, so has staging on every worker.
    type: dict
    required: true
seealso:
  - module: solver.fleet.worker_release
  - module: solver.fleet.wheelhouse_copy
"""

EXAMPLES = r"""
- name: Stage the release on every worker that answers
  solver.fleet.rollout_stage:
    ledger: "{{ solver_rollout.ledger }}"
    workers: "{{ solver_looked.answering }}"
    wheels: "{{ solver_wheels }}"
  timeout: 0
  run_once: true
"""

RETURN = r"""
diff:
  description: One entry for all workers that change alike.
  type: list
  elements: dict
  returned: in diff mode, where something changes
"""
