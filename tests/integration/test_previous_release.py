# SPDX-License-Identifier: GPL-3.0-or-later
"""Old and new together: this collection with workers of the previous release, and the previous collection with ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fleetlib import ROOT, SOURCE, Fleet, assert_nothing_lost

# What stood on main before the rollout engine; the tag of the last release, once there is one.
PREVIOUS = "7c9f04e0675743ea70910d085ec06ea28aab82a0"
WORKER = SOURCE.relative_to(ROOT)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The previous collection, as a folder to find collections in."""
    folder = tmp_path_factory.mktemp("previous")
    own = folder / "ansible_collections/solver/fleet"
    own.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "--format=tar", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"this clone does not hold {PREVIOUS[:7]}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(own)], input=archive.stdout, check=True)
    assert (own / WORKER / "src/solver_worker/cli.py").read_text() != "", own
    return folder


def source_of(checkout: Path, folder: Path) -> str:
    """An overlay that replaces the whole program, and what it depends on, by that of a checkout."""
    shutil.copytree(checkout / WORKER / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(checkout / WORKER / "pyproject.toml", folder)
    return str(folder)


class PreviousFleet(Fleet):
    """A local fleet that the playbooks of the previous release look after."""

    def __init__(self, folder: Path, collections: Path) -> None:
        super().__init__(folder)
        self.collections = collections

    def start_playbook(self, name: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        own = {"ANSIBLE_COLLECTIONS_PATH": str(self.collections)}
        return super().start_playbook(name, *words, **{**options, "env": {**(options.get("env") or {}), **own}})

    def verdict(self) -> dict[str, Any]:
        """As the previous release wrote it; the schema is this one's."""
        return dict(json.loads((self.dir / "verdict.json").read_text(encoding="utf-8")))


def credentials_understood(fleet: Fleet, worker: str) -> bool:
    """What a worker since the previous release can and the previous one cannot: it tells them apart."""
    program = Path(fleet.hosts()[worker]["solver_base_dir"], "workers", worker, "current/env/bin/python")
    code = "import solver_worker.config as config; print(hasattr(config, 'CREDENTIAL'))"
    return subprocess.run([program, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_this_collection_rolls_workers_of_the_previous_release(make_fleet, previous, tmp_path):
    overlay = source_of(previous / "ansible_collections/solver/fleet", tmp_path / "overlay")
    fleet: Fleet = make_fleet(3, solver_local_fleet_versions=["1.2.0", "1.3.0"],
                              solver_local_fleet_overlays={"1.2.0": overlay})
    assert not credentials_understood(fleet, "w1")
    fleet.start_traffic()
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert credentials_understood(fleet, "w1")
    # and back again: the previous program reads the journal that ours wrote.
    back = fleet.playbook("rollback")
    assert back.returncode == 0, back.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    assert not credentials_understood(fleet, "w1")
    assert_nothing_lost(fleet.end_traffic())
    fleet.assert_all_serve()


def test_the_previous_collection_rolls_our_workers(previous, tmp_path):
    folder = ROOT / ".cache" / "fleets" / f"previous-{os.environ.get('PYTEST_XDIST_WORKER', 'single')}"
    fleet = PreviousFleet(folder, previous)
    fleet.down()
    overlay = source_of(ROOT, tmp_path / "overlay")
    try:
        # Its tools are those of a version that is its own, which no worker runs.
        fleet.up(3, solver_local_fleet_versions=["1.1.0", "1.2.0", "1.3.0"],
                 solver_local_fleet_overlays={"1.2.0": overlay, "1.3.0": overlay})
        assert credentials_understood(fleet, "w1")
        fleet.start_traffic()
        done = fleet.roll("1.3.0")
        assert done.returncode == 0, done.stdout
        assert set(fleet.versions().values()) == {"1.3.0"}
        assert_nothing_lost(fleet.end_traffic())
        fleet.assert_all_serve()
    finally:
        done = fleet.down()
    assert done.returncode == 0, done.stdout
