# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent / "faults", HERE.parents[1] / ".collections"))
from fleetlib import ROOT, Fleet, ansible_bin, broken_releases  # noqa: E402
from fleetpool import Pool  # noqa: E402

VERSIONS = ["1.2.0", "1.3.0", "1.4.0", "1.4.1"]


@pytest.fixture(scope="session")
def fleet_folder() -> Path:
    """One folder per test process; what is built in it serves all its fleets, one after the other."""
    # and per ansible-core, because what is built fits the Python that it was built with.
    core = ansible_bin().parent.name.strip(".")
    folder = ROOT / ".cache" / "fleets" / f"{core}-{os.environ.get('PYTEST_XDIST_WORKER', 'single')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def pool(fleet_folder: Path) -> Iterator[Pool]:
    # Not with_suffix: what follows the dot of 2.21-gw0 is no suffix, and two processes would share one folder.
    overlays = broken_releases(fleet_folder.with_name(f"{fleet_folder.name}.overlays"))
    made = Pool(fleet_folder, 4, solver_local_fleet_versions=VERSIONS, solver_local_fleet_overlays=overlays)
    yield made
    made.close()


@pytest.fixture
def make_fleet(pool: Pool) -> Iterator[Callable[..., Fleet]]:
    def make(size: int = 4, **variables: object) -> Fleet:
        return pool.get(size, **variables)

    yield make
    pool.rest()
