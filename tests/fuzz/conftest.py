# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout importable as ansible_collections.solver.fleet, and the good documents of the unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests/unit/plugins/plugin_utils"),
                str(ROOT / "roles/worker/files/solver-worker/src")]
