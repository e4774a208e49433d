#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_begin
short_description: Say whether a rollout holds the lock of its fleet
version_added: "1.0.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Reads what M(solver.fleet.rollout_lock) said for each worker. Fails unless all of them, and more than half of
    the fleet, are locked by this run. Then writes the verdict C(interrupted) to C(solver_verdict_file), to be
    replaced at the end.
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
- name: Go on only with the lock
  solver.fleet.rollout_begin:
  run_once: true
"""

RETURN = r"""
begun:
  description: Whether the rollout holds the lock.
  type: bool
  returned: success
failure:
  description: All reasons, in C(details.reasons).
  type: dict
  returned: failure
"""
