#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_changes
short_description: Show what staged releases change, once for all workers that change alike
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - >-
    Compares, for each worker of the play, packages, configuration and unit of the current release with those of the
    staged one, as M(solver.fleet.worker_release) returned them with O(solver.fleet.worker_release#module:contents).
  - Workers whose changes differ in nothing but their name, port and paths are one diff.
  - At most 10 diffs are shown; of the other workers the names.
  - Runs on the controller and asks no host.
extends_documentation_fragment:
  - solver.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
options:
  staged:
    description: Name of the variable in which each host keeps the result of M(solver.fleet.worker_release).
    type: str
    required: true
  wheels:
    description: The wheels of a release that is not built yet, as M(solver.fleet.wheelhouse) returns them.
    type: list
    elements: dict
    default: []
seealso:
  - module: solver.fleet.worker_release
"""

EXAMPLES = r"""
- name: Show what changes
  solver.fleet.fleet_changes:
    staged: worker_staged
    wheels: "{{ solver_wheels.wheels }}"
  run_once: true
  when: ansible_diff_mode
"""

RETURN = r"""
diff:
  description: One entry for all workers that change alike.
  type: list
  elements: dict
  returned: always
"""
