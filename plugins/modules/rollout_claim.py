#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_claim
short_description: Take the lock of a whole fleet
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Takes the lock of the first worker by name, then of all others at once, with M(solver.fleet.rollout_lock). Needs all
    that could be reached, and more than half of the fleet; otherwise gives back what it took.
  - >-
    Then writes the verdict C(interrupted) to C(solver_verdict_file), to be replaced at the end.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  idempotent:
    support: partial
"""

EXAMPLES = r"""
- name: Take the lock
  solver.fleet.rollout_claim:
    ledger: "{{ solver_rollout.ledger }}"
  register: solver_claimed
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
"""
