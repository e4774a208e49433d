# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions of a rollout have in common; they are internal to the playbooks of this collection."""

from __future__ import annotations


class ModuleDocFragment:
    """Options and attributes; each action adds C(idempotent)."""

    DOCUMENTATION = r"""
options: {}
notes:
  - Internal to the playbooks of this collection. Its options and results may change in any release.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: none
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action:
    description: Runs on the controller.
    support: full
"""

    LEDGER = r"""
options:
  ledger:
    description: The ledger of the run, a folder on the controller.
    type: path
    required: true
"""

    # Of those that need no ledger.
    SETTLED = r"""
options:
  rollout:
    description: What M(solver.fleet.rollout_settings) returned.
    type: dict
    required: true
"""

    PART = r"""
options:
  part:
    description: V(roll) for the rollout itself, V(back) for the way back after an abort.
    type: str
    choices: [roll, back]
    default: roll
"""

    WORKER = r"""
options:
  worker:
    description: The worker, by its inventory name.
    type: str
    required: true
"""
