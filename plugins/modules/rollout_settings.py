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
    Runs on the controller alone. The result stands in the fact C(solver_rollout), for every host of the play.
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
  fleet:
    description:
      - All workers of the inventory, so that a run that is limited to a part of them is noticed.
      - For the kinds V(provision) and V(remove) the fact then holds all of them, whatever the limit.
    type: list
    elements: str
  kind:
    description:
      - What the settings are for. With it, also what only a rollout needs is checked.
      - V(update) and V(provision) need C(solver_version), V(rollback) may have it, V(recover), V(remove) and
        V(resume) do not use it.
      - The hooks are read, and a refusal is written as a verdict, for V(update), V(rollback) and V(recover) alone.
    type: str
    choices: [update, rollback, recover, provision, remove, resume]
"""

EXAMPLES = r"""
- name: Check the settings
  solver.fleet.rollout_settings:
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: The fact C(solver_rollout) with C(settings), C(workers) (by inventory name), C(hosts) and C(package).
  type: dict
  returned: success
failure:
  description: All mistakes, in C(details.errors).
  type: dict
  returned: failure
"""
