#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_ask
short_description: Ask every worker of a fleet how it is, or leave a request with it
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Asks all workers at once, each once and for a bounded time, and says how long ago each one answered. A host that
    cannot be asked is C(unreachable) in its answer; the task never fails for it.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.settled
attributes:
  idempotent:
    support: full
options:
  workers:
    description: Ask these alone; by default all of the run.
    type: list
    elements: str
  request:
    description: Leave this request for the running rollout instead.
    type: str
    choices: [none, pause, abort]
"""

EXAMPLES = r"""
- name: Ask every worker how it is
  solver.fleet.fleet_ask:
    rollout: "{{ solver_rollout }}"
  register: solver_asked
  run_once: true
"""

RETURN = r"""
answers:
  description: The answer of each worker, with C(age_s), the seconds since it came.
  type: dict
  returned: always
"""
