#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation alone; the code is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Make the report of a rollout
version_added: "1.1.0"
author:
  - solver.fleet contributors (@solver-fleet)
description:
  - Makes one HTML file of a verdict, which needs nothing else to be read. Runs on the controller.
extends_documentation_fragment:
  - solver.fleet.attributes
  - solver.fleet.rollout
attributes:
  idempotent:
    support: full
options:
  document:
    description: The verdict. Without it O(verdict_file) is read.
    type: dict
  verdict_file:
    description: The file of the verdict on the controller.
    type: str
    default: ''
  report_file:
    description: The file to write. By default O(verdict_file) with the ending C(.html).
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Write the report
  solver.fleet.rollout_report:
    verdict_file: ~/solver/verdict.json
"""

RETURN = r"""
msg:
  description: Where the report is.
  type: str
  returned: always
"""
