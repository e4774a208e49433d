# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout importable as ansible_collections.solver.fleet, wherever it lies."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))
