#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Wait until a worker's turn may begin
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Lets workers in by the order of the plan, one as soon as there is a place in the window. The one that is
    next in line keeps the view of the fleet fresh meanwhile, and renews the rollout's lock in the same calls.
  - >-
    Closes when the lock was lost, somebody asked for a pause or an abort, a turn was inconclusive, failed, reverted,
    quarantined, unreachable and unknown workers are more than C(solver_max_fail_percentage) allows in the whole fleet,
    or the stage's own budget in the stage, a hook before the rollout or a stage failed, quarantine fills the window, a
    canary is worse or cannot be judged or waits for promotion, no worker became healthy for
    C(solver_progress_deadline), or nothing came of a turn for twice that.
  - >-
    Waits, and says so, while fewer workers would serve than the fleet minus the window. Never fails: a closed gate must
    not keep the verdict from being given.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
  - solver.fleet.rollout.worker
  - solver.fleet.rollout.part
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Wait until the worker may begin
  solver.fleet.rollout_gate:
    ledger: "{{ solver_rollout.ledger }}"
    worker: "{{ inventory_hostname }}"
  register: solver_gate
"""

RETURN = r"""
open:
  description: Whether the turn may begin.
  type: bool
  returned: always
cause:
  description: >-
    Why not, in one word, V(lock), V(paused), V(operator), V(inconclusive), V(budget), V(floor), V(progress),
    V(hook), V(worse), V(unjudged), V(awaits_promotion), or V(unknown) for a mistake of ours.
  type: str
  returned: always
reason:
  description: Why not.
  type: str
  returned: always
raises:
  description: Whether the worker is to get a standby first, and to wait here once more before that takes over.
  type: bool
  returned: when it is open
begins_stage:
  description: Whether it is the first turn of its stage.
  type: bool
  returned: always
ends_stage:
  description: Whether the stage ends because the gate is closed.
  type: bool
  returned: always
"""
