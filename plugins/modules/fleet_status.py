#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: Show how a fleet is
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Asks all workers at once, each for a bounded time, and makes a document and a table of what they say. With
    C(solver_status_watch) it looks again and again until the rollout that is under way has ended. With
    C(solver_status_format=json) it prints the document. Changes nothing.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.settled
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Ask every worker how it is
  solver.fleet.fleet_status:
    rollout: "{{ solver_rollout }}"
  register: solver_asked
"""

RETURN = r"""
document:
  description: The last look, of the schema C(solver.status/1).
  type: dict
  returned: always
document_shown:
  description: Whether the document was printed.
  type: bool
  returned: always
problem:
  description: Why the look, or the rollout that was watched, is no success; empty if it is.
  type: str
  returned: always
"""
