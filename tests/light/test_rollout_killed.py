# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller is killed; what the next run, or recover.yml, makes of it. With real workers: tests/faults."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faultlib import Events, Held, ask, ended, kill_all, record_of, until
from fleetlib import seen_verdict, signal_tree
from lightfleet import LightFleet

Run = subprocess.Popen[str]


def look(fleet: LightFleet, name: str) -> dict[str, Any]:
    return ask(fleet.socket(name)) or {}


def runs(fleet: LightFleet, name: str, version: str) -> bool:
    return look(fleet, name).get("instance", {}).get("version") == version


# By what the run tells, and by what the workers say.
PHASES: dict[str, Callable[[LightFleet, Events], Any]] = {
    "planning": lambda _fleet, events: events.find("begun"),
    "staging": lambda _fleet, events: events.find("looked"),
    "before the first drain": lambda _fleet, events: events.find("locked"),
    "draining": lambda fleet, _events: look(fleet, "w1").get("drain"),
    "switched": lambda fleet, _events: runs(fleet, "w1", "1.3.0"),
    "soaking": lambda fleet, _events: runs(fleet, "w1", "1.3.0") and look(fleet, "w1").get("accepting"),
    "second worker": lambda fleet, _events: look(fleet, "w2").get("drain"),
    "judging": lambda _fleet, events: events.find("judging"),
    "giving the lock back": lambda _fleet, events: events.find("verdict"),
}
BEFORE_THE_LOCK = ("planning", "staging")


def by_group(number: signal.Signals) -> Callable[[Run], Any]:
    """As a terminal or AWX does."""
    def send(process: Run) -> None:
        os.killpg(process.pid, number)
        ended(process)

    return send


KILLS = {"SIGINT": by_group(signal.SIGINT), "SIGTERM": by_group(signal.SIGTERM), "everything": kill_all}


def kill_in(fleet: LightFleet, phase: str, how: str = "everything", **variables: Any) -> None:
    """Begin a rollout, and end it in a phase."""
    events = Events(fleet)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", **events.settings, **variables)
    until(phase, lambda: PHASES[phase](fleet, events), process)
    KILLS[how](process)
    if phase not in BEFORE_THE_LOCK:
        word = fleet.verdict()["verdict"]
        assert word == ("completed" if phase == "giving the lock back" else "interrupted")
        seen_verdict(word, process.returncode) if word == "interrupted" else None


def ids(fleet: LightFleet) -> set[str]:
    """The rollouts that the records name; killed early, none or only the first worker has one."""
    own = [fleet.dir / "base/workers" / name / "rollout/record.json" for name in fleet.hosts()]
    found = [record_of(fleet, path.parents[1].name)["rollout"] for path in own if path.exists()]
    return {rollout["id"] for rollout in found if rollout}


def assert_all_run(fleet: LightFleet, version: str) -> None:
    assert set(fleet.versions().values()) == {version}
    fleet.assert_all_serve()
    assert fleet.most_out_at_once() <= 1
    assert fleet.served_by_unverified() == []


def assert_unlocked(fleet: LightFleet) -> None:
    assert [name for name in fleet.hosts() if record_of(fleet, name)["lock"] is not None] == []


@pytest.mark.parametrize(("how", "phase"), [
    pytest.param("everything", "judging", marks=pytest.mark.quick), ("SIGINT", "switched"), ("SIGTERM", "soaking"),
    *(("everything", phase) for phase in (
        "planning", "staging", "before the first drain", "second worker", "giving the lock back"))])
def test_run_again_converges_and_continues(light_fleet: LightFleet, phase: str, how: str) -> None:
    fleet = light_fleet.up(2)
    kill_in(fleet, phase, how, solver_min_healthy_time=4)
    first = ids(fleet)
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    # killed before it had the lock, it was no rollout yet
    assert len(first) == (0 if phase in BEFORE_THE_LOCK else 1)
    assert first in (set(), ids(fleet))
    assert fleet.verdict()["verdict"] == "completed"
    assert {fleet.verdict()["rollout_id"]} == ids(fleet)
    assert_unlocked(fleet)
    assert_all_run(fleet, "1.3.0")


def test_a_failure_is_remembered_by_the_next_run_though_the_controller_dies_at_once(light_fleet: LightFleet) -> None:
    """It is in the worker's record when its turn ends: forgotten, each run again would spend the budget anew."""
    fleet = light_fleet.up(4)
    fleet.set_fault("w1", version="1.3.0", probe="release")
    held, events = Held(fleet), Events(fleet)
    held.let_go("w1")
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", **held.settings, **events.settings)
    until("the outcome of w1", lambda: events.find("outcome", worker="w1"), process)
    kill_all(process)
    assert record_of(fleet, "w1")["rollout"]["outcome"] == "reverted"
    fleet.heal()
    fleet.set_fault("w2", version="1.3.0", probe="release")
    done = fleet.roll("1.3.0")
    # One of four is borne, and w1 is that one.
    assert fleet.verdict()["verdict"] == "aborted", done.stdout
    assert "w1, w2" in fleet.verdict()["reasons"][0]
    assert fleet.outcomes() == {"w1": "failed", "w2": "reverted", "w3": "not_attempted", "w4": "not_attempted"}
    assert_unlocked(fleet)
    assert_all_run(fleet, "1.2.0")


# Where the revert of w1 is when the controller dies; its old release needs its time to come up.
BACK: dict[str, Callable[[LightFleet], bool]] = {
    "to be drained once more": lambda _fleet: True,
    # Coming up, or held already: the moment between that and its resume is too short to be seen each time.
    "its old release, held": lambda fleet: runs(fleet, "w1", "1.2.0") and not look(fleet, "w1").get("accepting", True),
    "in service again": lambda fleet: runs(fleet, "w1", "1.2.0") and bool(look(fleet, "w1").get("accepting")),
}
NEXT: dict[str, Callable[[LightFleet], Any]] = {
    "again": lambda fleet: fleet.roll("1.3.0"), "recover": lambda fleet: fleet.playbook("recover")}


@pytest.mark.parametrize("then", NEXT)
@pytest.mark.parametrize("where", BACK)
def test_killed_while_a_worker_goes_back(light_fleet: LightFleet, where: str, then: str) -> None:
    """The release is bad, and the controller dies in the middle of the revert: it is never left running or held."""
    fleet = light_fleet.up(2)
    fleet.set_fault(version="1.3.0", probe="release")
    fleet.set_fault(version="1.2.0", start_s=1.5)
    events = Events(fleet)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", **events.settings)
    until(where, lambda: events.find("follow_up", action="revert") and BACK[where](fleet), process)
    kill_all(process)
    done = NEXT[then](fleet)
    assert set(fleet.versions().values()) == {"1.2.0"}, done.stdout
    fleet.assert_all_serve()
    again = fleet.playbook("recover")
    assert (again.returncode, fleet.verdict()["verdict"]) == (0, "completed"), again.stdout
    assert_unlocked(fleet)
    assert_all_run(fleet, "1.2.0")


def test_killed_while_the_whole_fleet_goes_back(light_fleet: LightFleet) -> None:
    """Run again, the rollout is still out of budget, and it still knows where those come from that it had updated."""
    fleet = light_fleet.up(4, drain_s=1.5)
    fleet.set_fault("w3", version="1.3.0", failed="PORT_TAKEN")
    events = Events(fleet)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_max_fail_percentage=0,
                                   **events.settings)
    until("the drain of a worker that goes back",
          lambda: events.find("admitted", part="back", worker="w2") and look(fleet, "w2").get("drain"), process, 200)
    kill_all(process)
    done = fleet.roll("1.3.0", solver_max_fail_percentage=0)
    assert fleet.verdict()["verdict"] == "rolled_back", done.stdout
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "rolled_back", "w3": "failed", "w4": "not_attempted"}
    assert_all_run(fleet, "1.2.0")


@pytest.mark.parametrize("phase", ["draining", "switched"])
def test_a_run_that_ends_before_its_first_worker_leaves_nobody_in_the_drain_of_a_dead_one(
    light_fleet: LightFleet, tmp_path: Path, phase: str,
) -> None:
    """It touches no further worker; one that a dead run left drained is brought back all the same."""
    fleet = light_fleet.up(2, drain_s=1.5)
    hook = tmp_path / "refuse.yml"
    hook.write_text("- name: Ask the change board\n  ansible.builtin.fail: {msg: not tonight}\n", encoding="utf-8")
    kill_in(fleet, phase)
    done = fleet.roll("1.3.0", solver_hooks={"before_rollout": str(hook)})
    assert fleet.verdict()["verdict"] == "aborted", done.stdout
    assert "not tonight" in fleet.verdict()["reasons"][0]
    assert_all_run(fleet, "1.2.0")


@pytest.mark.parametrize(("phase", "version"), [
    ("draining", "1.2.0"), ("second worker", "1.3.0")])
def test_recover_brings_back_what_was_left(light_fleet: LightFleet, phase: str, version: str) -> None:
    fleet = light_fleet.up(2, drain_s=1.5)
    kill_in(fleet, phase)
    done = fleet.playbook("recover")
    assert done.returncode == 0, done.stdout
    fleet.assert_all_serve()
    assert fleet.versions() == {"w1": version, "w2": "1.2.0"}
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    again = fleet.playbook("recover")
    assert again.returncode == 0, again.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert_unlocked(fleet)
    # the rollout goes on, and still knows where each worker came from
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert record_of(fleet, "w1")["rollout"]["from"]["version"] == "1.2.0"
    assert_all_run(fleet, "1.3.0")


def test_a_controller_that_comes_back_is_fenced(light_fleet: LightFleet) -> None:
    """Stopped in the middle of a soak and taken for dead; when it wakes up another run has the lock."""
    fleet = light_fleet.up(2)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_min_healthy_time=8)
    until("the soak of w1", lambda: runs(fleet, "w1", "1.3.0") and look(fleet, "w1").get("accepting"), process)
    signal_tree(process.pid, signal.SIGSTOP)
    try:
        refused = fleet.roll("1.3.0")
        assert "solver_lock_steal: true" in refused.stdout
        assert refused.returncode != 0
        done = fleet.roll("1.3.0", solver_lock_steal=True, solver_reason="its laptop is shut")
        assert done.returncode == 0, done.stdout
        boots = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()}
    finally:
        signal_tree(process.pid, signal.SIGCONT)
    out, _none = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "lock" in out
    assert {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()} == boots
    assert_all_run(fleet, "1.3.0")


def test_ctrl_c_says_what_was_left(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2, drain_s=20)
    events = Events(fleet)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", **events.settings,
                                   env={"ANSIBLE_STDOUT_CALLBACK": "solver.fleet.rollout"})
    until("the drain of w1", lambda: PHASES["draining"](fleet, events), process)
    os.killpg(process.pid, signal.SIGINT)
    out, _none = process.communicate(timeout=60)
    last = out.splitlines()[-2:]
    assert last[0].startswith("interrupted: 0 of 2 workers had their turn (rollout "), out
    assert last[0].endswith("; in its turn: w1 (drains)"), out
    assert "Run the same command again" in last[1], out
