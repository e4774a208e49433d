#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_history
short_description: List the rollouts that a fleet remembers, or bring the verdict of one
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Asks all workers at once which verdicts they keep, and one of them for a whole verdict. What comes is checked like
    all that a host says. Changes nothing.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.settled
attributes:
  idempotent:
    support: full
options:
  rollout_id:
    description: The rollout, or the run, to bring. Without it all are listed, or with O(whole) the newest is brought.
    type: str
    default: ''
  whole:
    description: Whether a whole verdict is needed, and nothing is to be shown.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ask every worker which rollouts it remembers
  solver.fleet.fleet_history:
    rollout: "{{ solver_rollout }}"
  register: solver_asked
"""

RETURN = r"""
document:
  description: The runs, of the schema C(solver.history/1), or the whole verdict.
  type: dict
  returned: success
document_shown:
  description: Whether the document was printed.
  type: bool
  returned: success
"""
