#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_settings
short_description: Read and check the settings of a rollout
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Reads the C(solver_) variables of every host in the play, checks their names, types and how they fit together,
    and refuses with all mistakes at once.
  - >-
    Begins the ledger of the run, from which all other actions of a rollout read them.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
attributes:
  idempotent:
    support: full
options:
  fleet:
    description:
      - All workers of the inventory, so that a run that is limited to a part of them is noticed.
      - For the kinds V(provision), V(remove) and V(request) the result then holds all of them, whatever the limit.
    type: list
    elements: str
  kind:
    description:
      - What the settings are for. With it, also what only a rollout needs is checked.
      - V(update) and V(provision) need C(solver_version), V(rollback) may have it, V(recover), V(remove) and
        V(resume) and V(request) do not use it.
      - The hooks are read, and a refusal is written as a verdict, for V(update), V(rollback) and V(recover) alone.
    type: str
    choices: [update, rollback, recover, provision, remove, resume, request]
"""

EXAMPLES = r"""
- name: Check the settings
  solver.fleet.rollout_settings:
    kind: update
    fleet: "{{ query('ansible.builtin.inventory_hostnames', 'solver_workers') }}"
  register: solver_rollout
  run_once: true
"""

RETURN = r"""
settings:
  description: The settings of the rollout, each with its value or its default.
  type: dict
  returned: success
workers:
  description: What is known of each worker, by its inventory name. Of a rollout the ledger has it.
  type: dict
  returned: success, but for a rollout
hosts:
  description: The workers of this run.
  type: list
  elements: str
  returned: success
ledger:
  description: The ledger of the run, a folder on the controller.
  type: str
  returned: success
failure:
  description: All mistakes, in C(details.errors).
  type: dict
  returned: failure
"""
