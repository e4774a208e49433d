# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fleetlib import ROOT, Fleet, ansible_bin, broken_releases

VERSIONS = ["1.2.0", "1.3.0", "1.4.0", "1.4.1"]


@pytest.fixture(scope="session")
def fleet_folder() -> Path:
    """One folder per test process; what is built in it serves all its fleets, one after the other."""
    # and per ansible-core, because what is built fits the Python that it was built with.
    core = ansible_bin().parent.name.strip(".")
    folder = ROOT / ".cache" / "fleets" / f"{core}-{os.environ.get('PYTEST_XDIST_WORKER', 'single')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def make_fleet(fleet_folder: Path) -> Iterator:
    fleet = Fleet(fleet_folder)
    fleet.down()

    def make(size: int = 4, **variables):
        variables.setdefault("solver_local_fleet_versions", VERSIONS)
        variables.setdefault("solver_local_fleet_overlays", broken_releases(fleet_folder.with_suffix(".overlays")))
        return fleet.up(size, **variables)

    yield make
    done = fleet.down()
    assert done.returncode == 0, done.stdout
