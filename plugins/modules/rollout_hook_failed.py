#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_hook_failed
short_description: Remember that a hook failed
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Writes it into the ledger. The gate, the worker's turn and the verdict go by it.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
  - solver.fleet.rollout.part
attributes:
  idempotent:
    support: none
options:
  hook:
    description: The point at which the hook ran.
    type: str
    required: true
  worker:
    description: The worker around which it ran; empty for one that ran once.
    type: str
    default: ""
  task:
    description: Name of the task that failed.
    type: str
    default: ""
  reason:
    description: Why.
    type: str
    default: ""
  going_back:
    description: Whether workers go back; then it stops nothing.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Remember that the hook failed
  solver.fleet.rollout_hook_failed:
    ledger: "{{ solver_rollout.ledger }}"
    hook: before_stage
    reason: the balancer did not answer
  register: solver_hook_failed
"""

RETURN = r"""
closes_stage:
  description: Whether nobody of the stage may begin because of it.
  type: bool
  returned: always
msg:
  description: It in one line.
  type: str
  returned: always
"""
