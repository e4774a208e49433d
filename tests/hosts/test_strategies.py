# SPDX-License-Identifier: GPL-3.0-or-later
"""Each strategy on real hosts behind a real HAProxy, under traffic: releases that fail, and a controller that dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from faultlib import Events, kill_all, until
from fleetlib import EXIT_CODES
from hostlib import HostFleet

pytestmark = pytest.mark.long

WAYS: dict[str, dict[str, Any]] = {
    "canary": {"solver_strategy": "canary", "solver_canary_bake": 5, "solver_canary_min_tasks": 30},
    "standby": {"solver_switch": "standby"},
    "blue_green": {"solver_strategy": "blue_green", "solver_blue_keep": 0},
    "recreate": {"solver_strategy": "recreate", "solver_accept_downtime": True},
}
OTHER = {"1.2.0": "1.3.0", "1.3.0": "1.2.0"}
ALL_OUT = "recreate"
TOLD: dict[str, Callable[[Events], Any]] = {
    "baking": lambda events: events.find("judging"),
    "raised": lambda events: events.find("stands_by"),
    "taking over": lambda events: events.find("step_ended", step="switch"),
    "soaking": lambda events: events.find("step_ended", step="resume"),
}


@pytest.fixture(scope="module")
def ready(fleet: HostFleet) -> HostFleet:
    fleet.place(w1="h1", w2="h2", w3="h1")
    fleet.route("r1")
    fleet.write(solver_standby=True, solver_floor_view="routers", solver_drain_grace=2)
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    return fleet


def the_version(fleet: HostFleet) -> str:
    """What all workers run, in the services that start with their machines, with nothing beside them."""
    (version,) = set(fleet.versions().values())
    for worker, (host, _port) in fleet.workers.items():
        units = [f"solver-{each}@{worker}" for each in ("worker", "standby")]
        states = host.ssh(f"systemctl is-active {' '.join(units)}").stdout.split()
        assert states == ["active", "inactive"], (worker, states)
    fleet.assert_all_serve()
    return version


def assert_clean(fleet: HostFleet, way: str, what: str) -> None:
    audit = fleet.end_traffic()
    client = fleet.report()["client"]
    print(f"{way}, {what}, 8 clients, three workers:", json.dumps({**audit, **client}))
    assert audit["answered"] == audit["accepted"] >= 10, audit
    for name in ("lost", "wrong", "billed_twice", "uncertain", "failed", "expired"):
        assert audit[name] == 0, (name, audit)
    # Where all stop at once nobody takes a task for a while; that is what solver_accept_downtime is for.
    assert way == ALL_OUT or client["declined"] == audit["refused"] == 0, fleet.refusals()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["1.4.0", "1.4.1"])
def test_a_release_that_fails_leaves_what_was(ready: HostFleet, way: str, version: str) -> None:
    """One crashes, one does not solve its probe; what went back binds no strategy, so the next one begins at once."""
    fleet, before = ready, the_version(ready)
    fleet.start_clients(8)
    done = fleet.roll(version, solver_max_fail_percentage=0, solver_probe_retries=1, solver_force=True, **WAYS[way])
    assert done.returncode == EXIT_CODES[fleet.verdict()["verdict"]], done.stdout
    assert fleet.verdict()["verdict"] in ("aborted", "rolled_back"), done.stdout
    assert the_version(fleet) == before
    assert_clean(fleet, way, f"{version} fails")


@pytest.mark.parametrize(("way", "phase"), [
    ("canary", "taking over"), ("canary", "soaking"), ("canary", "baking"), ("standby", "raised"),
    ("standby", "taking over"), ("blue_green", "raised"), ("blue_green", "taking over"), ("recreate", "taking over"),
    ("recreate", "soaking")])
def test_the_same_command_ends_what_a_killed_controller_began(ready: HostFleet, way: str, phase: str) -> None:
    fleet, version = ready, OTHER[the_version(ready)]
    wanted = {**WAYS[way], "solver_version": version}
    events = Events(fleet)
    fleet.start_clients(8)
    process = fleet.start_playbook("rolling_update", **wanted, **events.settings)
    until(phase, lambda: TOLD[phase](events), process)
    kill_all(process)
    done = fleet.playbook("rolling_update", **wanted)
    assert done.returncode == 0, done.stdout
    # One that was met between its two take-overs serves on in its slot until something brings it home.
    home = fleet.playbook("recover")
    assert home.returncode == 0, home.stdout
    assert the_version(fleet) == version
    assert_clean(fleet, way, f"killed while {phase}")
