#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Plan a rollout, or refuse
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Decides what becomes of each worker, in which stages, and whom to lock. Refuses where a worker's census or staging
    says no, where workers are missing, or where another rollout holds the fleet; names every reason at once.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Plan the rollout
  solver.fleet.rollout_plan:
    ledger: "{{ solver_rollout.ledger }}"
  register: solver_planned
"""

RETURN = r"""
refused:
  description: Whether the rollout must not begin; C(msg) says why.
  type: bool
  returned: always
again:
  description: Whether another rollout came first, and the operator wants to wait for it.
  type: bool
  returned: refused
todo:
  description: How many workers will have a turn.
  type: int
  returned: planned
rollout_id:
  description: The rollout.
  type: str
  returned: planned
kind:
  description: What it is.
  type: str
  returned: planned
target:
  description: What it leads to.
  type: str
  returned: planned
"""
