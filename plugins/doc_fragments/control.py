# -*- coding: utf-8 -*-
# Copyright: (c) 2026, solver.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options shared by the modules that talk to a worker over its control socket."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the worker is, and how long it may take to answer."""

    DOCUMENTATION = r"""
options:
  control_socket:
    description:
      - Absolute path of the worker's control socket on the target.
      - A Unix socket path ends at 107 bytes; a longer one is refused.
    type: path
    required: true
  control_timeout:
    description:
      - How many seconds one exchange with the worker may take as a whole, from connecting to the last byte.
      - Time that the worker is asked to wait for comes on top.
    type: float
    default: 5.0
"""
