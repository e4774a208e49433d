# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout importable as ansible_collections.solver.fleet, wherever it lies."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))

# A shared machine may stand still for a moment; how long something takes is for the benches.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
