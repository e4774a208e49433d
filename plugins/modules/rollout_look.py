#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_look
short_description: Ask every worker of a fleet how it is
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Asks all workers at once, and those that do not answer once more. Waits for another rollout to end, for as long as
    C(solver_lock_wait) says. Changes nothing.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Ask every worker how it is
  solver.fleet.rollout_look:
    ledger: "{{ solver_rollout.ledger }}"
  register: solver_looked
"""

RETURN = r"""
answering:
  description: The workers that answer.
  type: list
  elements: str
  returned: always
locked:
  description: Which other rollouts hold the fleet.
  type: list
  elements: str
  returned: always
"""
