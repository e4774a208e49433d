# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes shared by all modules of the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The standard fragment: each module adds support (and details) per attribute."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
  platform:
    description: Target OS/families that can be operated against.
"""

    # Everything that talks to a worker.
    ACTIONGROUP_WORKER = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/solver.fleet.worker) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - solver.fleet.worker
"""
