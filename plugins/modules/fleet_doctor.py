#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_doctor
short_description: Examine a fleet before its first rollout, and at any time
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Looks at every worker's machine and at the worker, all at once and each for a bounded time, and says what is wrong
    there and what mends it. Changes nothing.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.settled
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Look at every machine and at every worker
  solver.fleet.fleet_doctor:
    rollout: "{{ solver_rollout }}"
  register: solver_asked
"""

RETURN = r"""
msg:
  description: The findings, one a line, and how many there are.
  type: list
  elements: str
  returned: always
bad:
  description: Whether anything keeps the fleet from working.
  type: bool
  returned: always
"""
