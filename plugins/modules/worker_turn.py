#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_turn
short_description: Take one worker through its turn
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Runs the worker's program on its host: drain, switch, verify, resume, soak. When a step fails, finds out whose fault
    it is, and reverts or gives back the worker. Writes what became of it into the ledger, and on the way forward into
    the worker's record, where its host can be reached.
  - >-
    What it does follows from where the worker stands in the ledger. V(raise), it raises and verifies the standby;
    V(raised), the gate closed, and it ends the standby, unless that waits for a promotion; V(turn), the turn;
    V(left), the turn is over, and its outcome is told again.
  - >-
    Never fails for what happens on the worker.
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
- name: Take the worker through its turn
  solver.fleet.worker_turn:
    ledger: "{{ solver_rollout.ledger }}"
    worker: "{{ inventory_hostname }}"
  register: solver_turn
"""

RETURN = r"""
outcome:
  description: >-
    What became of the worker, as in the verdict; empty where the hook before its stage failed, where its standby waits
    for a place, and where the gate closed before that had one.
  type: dict
  returned: always
raised:
  description: Whether its standby is verified, and the gate is to be asked for a place.
  type: bool
  returned: for a worker that is switched by a standby
ends_stage:
  description: Whether it was the last turn of its stage.
  type: bool
  returned: always
"""
