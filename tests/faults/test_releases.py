# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that fail in every way that a release can fail, and what a rollout makes of them."""

from __future__ import annotations

import pytest
from faultlib import CRASHES, DIES_LATER, FAILS_ITS_PROBE, HANGS, LIES, STARTS_SLOWLY, watched
from fleetlib import Fleet, assert_nothing_lost

QUICK_TO_FAIL = {"solver_healthy_deadline": 20, "solver_probe_retries": 1, "solver_max_fail_percentage": 0}


@pytest.mark.parametrize(("version", "settings"), [
    (CRASHES, {}), (FAILS_ITS_PROBE, {}), (LIES, {}), (HANGS, {}),
    (DIES_LATER, {"solver_min_healthy_time": 20, "solver_max_soaking": 0})])
def test_a_bad_release_is_reverted_and_blamed(make_fleet, version, settings):
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    silent = () if version == DIES_LATER else (version,)
    with watched(fleet, never_accepts=silent):
        done = fleet.roll(version, **{**QUICK_TO_FAIL, **settings})
    audit = fleet.end_traffic()
    assert done.returncode != 0, done.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    assert fleet.outcomes() == {"w1": "reverted", "w2": "not_attempted"}
    worker = fleet.verdict()["workers"][0]
    assert worker["cause"] == "release"
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit
    if version != DIES_LATER:  # that one died with tasks in its hands, as by kill -9
        assert_nothing_lost(audit)


def test_a_release_that_starts_slowly_is_waited_for(make_fleet):
    fleet: Fleet = make_fleet(2)
    with watched(fleet):
        done = fleet.roll(STARTS_SLOWLY)
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {STARTS_SLOWLY}


def test_an_abort_rolls_every_updated_worker_back(make_fleet):
    """Good on the first workers, bad on the others: all go back to where they came from, drained and verified."""
    fleet: Fleet = make_fleet(4)
    bad = {"solver_probe_retries": 1, "solver_max_fail_percentage": 0}
    # the release cannot take its port on w3
    taken = fleet.hosts()["w4"]["solver_data_port"]
    inventory = fleet.write_inventory("bad-port.yml", w3={"solver_data_port": taken})
    fleet.start_traffic(rate=8)
    with watched(fleet):
        done = fleet.playbook("rolling_update", inventory=inventory, solver_version="1.3.0", **bad)
    audit = fleet.end_traffic()
    assert done.returncode != 0, done.stdout
    assert fleet.verdict()["verdict"] == "rolled_back", done.stdout
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "rolled_back", "w3": "reverted", "w4": "not_attempted"}
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    assert_nothing_lost(audit)
    # run again, the same release on the same worker: refused by what is known of it, unless forced
    again = fleet.playbook("rolling_update", inventory=inventory, solver_version="1.3.0", **bad)
    assert again.returncode != 0
    assert "solver_force: true" in again.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}


def test_rollback_on_demand_returns_each_worker_and_again_does_nothing(make_fleet):
    fleet: Fleet = make_fleet(3)
    assert fleet.roll("1.3.0").returncode == 0
    fleet.start_traffic(rate=6)
    with watched(fleet):
        one = fleet.playbook("rollback", solver_only=["w2"])
        assert one.returncode == 0, one.stdout
        assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.3.0"}
        done = fleet.playbook("rollback")
        assert done.returncode == 0, done.stdout
    audit = fleet.end_traffic()
    assert set(fleet.versions().values()) == {"1.2.0"}
    assert_nothing_lost(audit)
    boots = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()}
    again = fleet.playbook("rollback")
    assert again.returncode == 0, again.stdout
    assert fleet.verdict()["kind"] == "rollback"
    assert {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()} == boots
    named = fleet.playbook("rollback", solver_version="1.3.0")
    assert named.returncode == 0, named.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
