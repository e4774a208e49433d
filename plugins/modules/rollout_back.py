#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_back
short_description: Decide which workers are rolled back after an abort
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    When the rollout was aborted because of its release, and C(solver_on_abort) is V(rollback), all workers that it
    brought to another release return to where they came from.
  - >-
    Whenever the gate closed, but for a lost lock, workers that an interrupted run left drained, and whose turn does
    not come, return as well.
  - >-
    Runs on the controller alone.
extends_documentation_fragment:
  - solver.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
  action:
    description: Runs on the controller.
    support: full
options: {}
"""

EXAMPLES = r"""
- name: Decide which workers return to where they came from
  solver.fleet.rollout_back:
  run_once: true
"""

RETURN = r"""
waves:
  description: The workers to roll back, wave by wave.
  type: list
  elements: list
  returned: success
pairs:
  description: Which worker belongs to which group, for M(ansible.builtin.add_host).
  type: list
  elements: dict
  returned: success
ansible_facts:
  description: The fact C(solver_back), of the shape of C(solver_plan).
  type: dict
  returned: success
"""
