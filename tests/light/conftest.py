# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[2] / each) for each in (
    "tests/light", "tests/integration", "tests/faults", ".collections", "roles/worker/files/solver-worker/src",
    "roles/worker/files/solver-worker/tests"))
from fleetlib import ROOT, ansible_bin
from lightfleet import LightFleet


@pytest.fixture(scope="session")
def light_folder() -> Path:
    """One folder per test process and per ansible-core: what is built in it serves all fleets of all sessions."""
    core = ansible_bin().parent.name.strip(".")
    return ROOT / ".cache" / "light" / f"{core}-{os.environ.get('PYTEST_XDIST_WORKER', 'single')}"


@pytest.fixture
def light_fleet(light_folder: Path) -> Iterator[LightFleet]:
    fleet = LightFleet(light_folder)
    yield fleet
    fleet.down()
