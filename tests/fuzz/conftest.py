# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout importable as ansible_collections.solver.fleet, and the good documents of the unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests/unit/plugins/plugin_utils"),
                str(ROOT / "roles/worker/files/solver-worker/src")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them belong to `make test`: how long they take is for SF_EXAMPLES to say."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/fuzz"):
            item.add_marker("quick")
