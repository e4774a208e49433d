#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Decide whether a wave may begin
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Asks every worker of the fleet at once how it is, and renews the rollout's lock in the same call.
  - >-
    Closes when the lock was lost, somebody asked for a pause or an abort, the last wave was inconclusive, failed,
    reverted, quarantined, unreachable and unknown workers of the whole fleet are more than
    C(solver_max_fail_percentage) allows, or no worker became healthy for C(solver_progress_deadline).
  - >-
    Waits, and says so, while fewer workers would serve than the fleet minus the window.
  - >-
    Never fails. A closed gate is for C(meta: end_host), so that the verdict is still given.
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
options:
  back:
    description: >-
      Whether the wave is one of the rollback after an abort. It needs the lock, and keeps the floor and the
      progress deadline; nothing else closes the gate. The fact is then C(solver_back_gate).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ask whether the wave may begin
  solver.fleet.rollout_gate:
  run_once: true

- name: Leave the workers of a wave that may not begin
  ansible.builtin.meta: end_host
  when: not solver_gate.open
"""

RETURN = r"""
open:
  description: Whether the wave may begin.
  type: bool
  returned: success
cause:
  description: >-
    Why not, in one word: V(lock), V(paused), V(operator), V(inconclusive), V(budget), V(floor),
    V(progress) or V(hook).
  type: str
  returned: success
reason:
  description: Why not.
  type: str
  returned: success
spent:
  description: Workers that count against the budget.
  type: list
  elements: str
  returned: success
done:
  description: How many workers have an outcome.
  type: int
  returned: success
todo:
  description: How many the plan has to update.
  type: int
  returned: success
"""
