#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_resume
short_description: End the drains of workers that may serve again
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Ends drains that a rollout or a removal has left, and with C(solver_resume_foreign) those of anybody else. Leaves
    alone what a running rollout holds, and what nobody has verified since it was drained.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.settled
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Put the workers back into service
  solver.fleet.fleet_resume:
    rollout: "{{ solver_rollout }}"
  register: solver_resumed
  run_once: true
"""

RETURN = r"""
not_serving:
  description: For each worker that was meant and does not serve, why.
  type: dict
  returned: always
"""
