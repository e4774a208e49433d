#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Plan the waves of a rollout
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Turns the census (C(solver_census)) and the staged releases (C(solver_staged)) of all workers into a plan, or
    refuses.
  - >-
    Workers that do not serve go first, then all go by name; their place in an inventory group says nothing.
  - >-
    Runs on the controller alone. The plan stands in the fact C(solver_plan).
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
- name: Plan the waves
  solver.fleet.rollout_plan:
  run_once: true
  register: solver_plan_result
"""

RETURN = r"""
plan:
  description: The plan, with C(waves), C(order), C(window), C(floor), C(tolerated) and C(workers).
  type: dict
  returned: success
pairs:
  description: Which worker belongs to which wave group; for M(ansible.builtin.add_host).
  type: list
  elements: dict
  returned: success
msg:
  description: The plan in lines for people.
  type: list
  elements: str
  returned: success
failure:
  description: Why the plan was refused, in C(details.reasons).
  type: dict
  returned: failure
"""
