# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts in which standbys take over: nobody leaves service for a release, be it good or bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faultlib import Events, ask, kill_all, until
from fleetlib import EXIT_CODES, wait_for
from lightfleet import LightFleet

STANDBY = {"solver_switch": "standby"}


def verdict(fleet: LightFleet) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((fleet.dir / "verdict.json").read_text(encoding="utf-8"))
    return document


def standbys(fleet: LightFleet) -> list[str]:
    """The workers beside which a standby answers."""
    return [name for name, own in fleet.hosts().items()
            if ask(str(Path(own["solver_control_socket"]).with_name(f"{name}-standby.sock")))]


def assert_nobody_left(fleet: LightFleet, version: str) -> None:
    assert set(fleet.versions().values()) == {version}
    fleet.assert_all_serve()
    assert fleet.most_out_at_once() == 0
    assert fleet.served_by_unverified() == []
    assert standbys(fleet) == []


def test_a_good_release_and_back(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)
    # Its soak sees one process, though each of the two before it stays for its connections.
    fleet.set_fault(linger_s=1.0)
    events = Events(fleet)
    done = fleet.roll("1.3.0", **STANDBY, solver_surge="100%", solver_min_healthy_time=3, **events.settings)
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "raised and verified beside the worker, which serves until it takes over; up to 3 at once" in said
    assert_nobody_left(fleet, "1.3.0")
    assert sorted(own["worker"] for own in events.find("stands_by")) == ["w1", "w2", "w3"]
    assert sum(1 for event in fleet.events() if event.get("probe")) == 3, "one solve is paid for per worker"
    back = fleet.playbook("rollback", **STANDBY)
    assert back.returncode == 0, back.stdout
    assert "standby" not in back.stdout, "what it leads to may know none"
    fleet.assert_all_serve()


@pytest.mark.parametrize(("fault", "reason"), [
    ({"crash": True}, "raise: the standby ended"),
    pytest.param({"probe": "release"}, "verify: ", marks=pytest.mark.quick),
    ({"failed": "journal_newer"}, "its standby did not take over"),
])
def test_a_bad_release_costs_no_capacity(light_fleet: LightFleet, fault: dict[str, Any], reason: str) -> None:
    fleet = light_fleet.up(3)
    fleet.set_fault(version="1.3.0", **fault)
    done = fleet.roll("1.3.0", **STANDBY, solver_max_fail_percentage=0)
    assert done.returncode == EXIT_CODES["aborted"], done.stdout
    assert_nobody_left(fleet, "1.2.0")
    failed = [own for own in verdict(fleet)["workers"] if own["outcome"] == "reverted"]
    assert failed
    assert all(own["cause"] == "release" and reason in own["reason"] for own in failed)


def test_refused_where_it_cannot_be(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    path = fleet.write_inventory("less.yml", w2={"solver_standby": False})
    done = fleet.playbook("rolling_update", "-i", str(path), solver_version="1.3.0", **STANDBY)
    assert done.returncode == EXIT_CODES["refused"], done.stdout
    said = " ".join(done.stdout.split())
    assert "w2: it has no slot for a standby; set solver_standby: true and run provision.yml" in said
    assert "or set solver_switch: in_place" in said


def test_a_recovery_drops_what_a_killed_run_raised(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    process = fleet.start_playbook("blue_green_update", solver_version="1.3.0")
    until("standbys", lambda: standbys(fleet), process)
    kill_all(process)
    fleet.assert_all_serve()
    done = fleet.playbook("recover")
    assert done.returncode == 0, done.stdout
    assert "a standby was left beside it" in " ".join(done.stdout.split())
    assert_nobody_left(fleet, "1.2.0")


BLUE_GREEN = {"solver_blue_keep": 600, "solver_min_healthy_time": 0}
WAYS: dict[str, dict[str, Any]] = {
    "rolling": {**STANDBY, "solver_max_unavailable": "20%"}, "blue_green": {**BLUE_GREEN, "solver_blue_keep": 0}}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("size", [10, 60])
def test_larger_fleets_with_a_good_release_and_a_bad_one(light_fleet: LightFleet, strategy: str, size: int) -> None:
    """Also with drains of a minute, which are handed over, nobody is out of service for an instant."""
    fleet = light_fleet.up(size, drain_s=60)
    fleet.set_fault(version="1.4.0", probe="release")
    forks = ("--forks", str(size if strategy == "blue_green" else 25))  # the window, as many in their soak, and one
    each = {**WAYS[strategy], "solver_strategy": strategy, "timeout": 900}
    bad = fleet.roll("1.4.0", *forks, **each)
    assert bad.returncode == EXIT_CODES["aborted"], bad.stdout
    assert_nobody_left(fleet, "1.2.0")
    good = fleet.roll("1.3.0", *forks, **each)
    assert good.returncode == 0, good.stdout
    assert (verdict(fleet)["verdict"], verdict(fleet)["strategy"]) == ("completed", strategy)
    assert_nobody_left(fleet, "1.3.0")
    assert {own["outcome"] for own in verdict(fleet)["workers"]} == {"updated"}


def test_blue_green_waits_for_all_is_promoted_and_keeps_what_was(light_fleet: LightFleet) -> None:
    """Green stands by beside all, somebody promotes it, blue stands by afterwards, and going back takes it over."""
    fleet = light_fleet.up(3)
    few = fleet.playbook("blue_green_update", "--forks", "2", solver_version="1.3.0", **BLUE_GREEN)
    assert few.returncode == EXIT_CODES["refused"], few.stdout
    assert "the turns of 3 workers wait for each other; use --forks 3" in " ".join(few.stdout.split())
    waits = fleet.playbook("blue_green_update", solver_version="1.3.0", solver_promote="manual", **BLUE_GREEN)
    assert waits.returncode == 0, waits.stdout
    assert verdict(fleet)["verdict"] == "awaiting_promotion"
    assert (set(fleet.versions().values()), standbys(fleet)) == ({"1.2.0"}, ["w1", "w2", "w3"])
    done = fleet.playbook("blue_green_update", solver_version="1.3.0", solver_promote="now", **BLUE_GREEN)
    assert done.returncode == 0, done.stdout
    assert "when all standbys are verified, 3 at a time take over" in " ".join(done.stdout.split())
    assert (verdict(fleet)["verdict"], verdict(fleet)["strategy"]) == ("completed", "blue_green")
    assert (set(fleet.versions().values()), standbys(fleet)) == ({"1.3.0"}, ["w1", "w2", "w3"])
    back = fleet.playbook("rollback")
    assert back.returncode == 0, back.stdout
    assert "by a standby (solver_switch)" in back.stdout
    assert_nobody_left(fleet, "1.2.0")


@pytest.mark.quick
def test_a_bad_green_is_dropped_and_nothing_ever_changed(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)
    fleet.set_fault("w2", "w3", version="1.3.0", probe="release")
    before = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()}
    done = fleet.playbook("blue_green_update", solver_version="1.3.0", **BLUE_GREEN)
    assert done.returncode == EXIT_CODES["aborted"], done.stdout
    assert_nobody_left(fleet, "1.2.0")
    assert {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()} == before
    assert {own["outcome"] for own in verdict(fleet)["workers"]} == {"reverted", "not_attempted"}


def versions(fleet: LightFleet) -> set[str]:
    return set(fleet.versions().values())


# By what the run tells, and by what the workers say.
PHASES: dict[str, Callable[[LightFleet, Events], Any]] = {
    "raising": lambda fleet, _events: standbys(fleet),
    "verified": lambda _fleet, events: events.find("stands_by"),
    "taking over": lambda fleet, _events: "1.3.0" in versions(fleet),
    "at home": lambda _fleet, events: [own for own in events.find("step_ended") if own["step"] == "settle"],
    "judging": lambda _fleet, events: events.find("judging"),
}


@pytest.mark.parametrize(("playbook", "phase"), [
    (playbook, phase) for playbook in ("rolling_update", "blue_green_update") for phase in PHASES])
def test_killed_anywhere_nobody_is_out_and_the_same_command_goes_on(
    light_fleet: LightFleet, playbook: str, phase: str,
) -> None:
    fleet = light_fleet.up(3)
    events = Events(fleet)
    wanted = {"solver_version": "1.3.0", **STANDBY, "solver_blue_keep": 0}
    process = fleet.start_playbook(playbook, **wanted, **events.settings)
    until(phase, lambda: PHASES[phase](fleet, events), process)
    kill_all(process)
    fleet.assert_all_serve()
    done = fleet.playbook(playbook, **wanted)
    assert done.returncode == 0, done.stdout
    # One that had taken over already may be left with what was to bring it home.
    fleet.set_fault(lease_speed=10_000)
    wait_for(lambda: standbys(fleet) == [], "the end of what nobody renews")
    assert_nobody_left(fleet, "1.3.0")


def test_standbys_that_everybody_forgot_end_with_their_leases(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    waits = fleet.playbook("blue_green_update", solver_version="1.3.0", solver_promote="manual")
    assert waits.returncode == 0, waits.stdout
    assert standbys(fleet) == ["w1", "w2"]
    fleet.set_fault(lease_speed=10_000)
    wait_for(lambda: standbys(fleet) == [], "the end of their leases")
    assert_nobody_left(fleet, "1.2.0")
