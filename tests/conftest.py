# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests have in common."""

from __future__ import annotations

import os

# The checkout's configuration names our own callback; most tests read what a play shows without it.
os.environ.setdefault("ANSIBLE_STDOUT_CALLBACK", "ansible.builtin.default")
