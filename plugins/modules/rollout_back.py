#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_back
short_description: Decide which workers return to where they came from
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Where the gate closed, but not for a lost lock, those that an interrupted run left in its drain. Where it closed for
    the release's sake, or for canaries that could not be judged and V(solver_on_inconclusive) is V(return), also all
    that this rollout updated.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Decide which workers return to where they came from
  solver.fleet.rollout_back:
    ledger: "{{ solver_rollout.ledger }}"
  register: solver_back
"""

RETURN = r"""
workers:
  description: The workers that go back, in order.
  type: list
  elements: str
  returned: always
"""
