# SPDX-License-Identifier: GPL-3.0-or-later
"""A new lab for each file of tests, and a fleet on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))
from hostlib import HostFleet
from lab import ROOT, Lab


@pytest.fixture(scope="module")
def home() -> Path:
    """One folder per test process: each has hosts and a network of its own."""
    return ROOT / ".cache" / "hosts-test" / os.environ.get("PYTEST_XDIST_WORKER", "single")


@pytest.fixture(scope="module")
def lab(home: Path) -> Iterator[Lab]:
    made = Lab(home / "lab", hosts=2, routers=1)
    made.down()
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def fleet(lab: Lab, home: Path) -> Iterator[HostFleet]:
    folder = home / "fleet"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = HostFleet(folder, lab)
    yield made
    made.close()
