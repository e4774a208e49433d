#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_verdict
short_description: Give the verdict of a rollout and its lock back
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Looks at every worker once more and builds the verdict. Writes it to C(solver_verdict_file) and into the workers'
    histories, and gives the lock back. In check mode the verdict is C(planned), and nothing but the file is written.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
  - solver.fleet.rollout.ledger
attributes:
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Give the verdict
  solver.fleet.rollout_verdict:
    ledger: "{{ solver_rollout.ledger }}"
  register: solver_judged
"""

RETURN = r"""
verdict:
  description: The document, as docs/verdict.md describes it.
  type: dict
  returned: always
not_done:
  description: For each worker that keeps the exit status from being 0, why.
  type: dict
  returned: always
"""
