#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_verdict
short_description: Give the verdict of a rollout
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Builds one JSON document from the plan and every outcome, writes it to C(solver_verdict_file) and shows it.
  - >-
    The document is the same for every verdict, C(completed), C(incomplete), C(aborted), C(rolled_back),
    C(rollback_failed), C(inconclusive), C(paused), C(planned), C(refused) or C(interrupted).
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
options: {}
"""

EXAMPLES = r"""
- name: Build the verdict
  solver.fleet.rollout_verdict:
  run_once: true
  register: solver_verdict_result
"""

RETURN = r"""
verdict:
  description: The document; docs/verdict.md describes it.
  type: dict
  returned: success
not_done:
  description: For each worker that is not at the target, why.
  type: dict
  returned: success
msg:
  description: The verdict in lines for people.
  type: list
  elements: str
  returned: success
"""
