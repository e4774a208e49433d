# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller is killed in each phase; then the same command again, only the leases, or recover.yml."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from faultlib import FAILS_ITS_PROBE, LEASES, Log, Sampler, record_of, until, watched
from fleetlib import Fleet, assert_nothing_lost, seen_verdict, wait_for

# By what the workers say; the others by the task that has just begun.
PHASES: dict[str, Callable[[Sampler], Any]] = {
    "draining": lambda seen: seen.last("w1").get("state") in ("draining", "drained"),
    "switched": lambda seen: seen.last("w1").get("instance", {}).get("version") == "1.3.0",
    "soaking": lambda seen: seen.last("w1").get("accepting") and seen.last("w1")["instance"]["version"] == "1.3.0",
    "second wave": lambda seen: seen.last("w2").get("state") in ("draining", "drained"),
}
TASKS = {
    "planning": "Ask every worker how it is",
    "staging": "Stage the release beside the running one",
    "before the first drain": "Ask whether the wave may begin",
    "judging": "Ask every worker how it is now",
    "giving the lock back": "Write the history and give the lock back",
}
BEFORE_THE_LOCK = ("planning", "staging")
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


def kill_in(fleet: Fleet, seen: Sampler, phase: str, how: signal.Signals, **variables: Any) -> None:
    """Begin a rollout, and kill its controller, with all its processes as a terminal or AWX does, in a phase."""
    variables.setdefault("solver_min_healthy_time", 4)
    log = Log(fleet)
    process = fleet.start_playbook("rolling_update", env=log.env, solver_version="1.3.0", **variables)
    until(seen, phase, lambda: log.at(TASKS[phase]) if phase in TASKS else PHASES[phase](seen), process)
    kill(process, how)
    if phase not in BEFORE_THE_LOCK:
        word = fleet.verdict()["verdict"]
        assert word == ("completed" if phase == "giving the lock back" else "interrupted")
        seen_verdict(word, process.returncode) if word == "interrupted" else None


def kill(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
    os.killpg(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode != 0


def ids(fleet: Fleet) -> set[str]:
    """The rollouts that the records name; killed early, none or only the first worker has one."""
    own = [record_of(fleet, name)["rollout"] for name in fleet.hosts()]
    return {rollout["id"] for rollout in own if rollout}


QUICK = (("SIGKILL", "switched"),)


def marks(how: str, phase: str) -> list[pytest.MarkDecorator]:
    """Which runs are quick, and which show what each ansible-core makes of a signal."""
    quick = [pytest.mark.quick] if (how, phase) in QUICK else []
    return [*quick, pytest.mark.trap] if phase == "draining" else quick


@pytest.mark.parametrize(("how", "phase"), [
    pytest.param(how, phase, marks=marks(how, phase))
    for how in SIGNALS for phase in [*TASKS, *PHASES]
    # the gentler signals differ only in the middle of a worker's update
    if how == "SIGKILL" or phase in ("draining", "switched", "soaking")])
def test_run_again_converges_and_continues(make_fleet, phase, how):
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    with watched(fleet) as seen:
        kill_in(fleet, seen, phase, SIGNALS[how])
        first = ids(fleet)
        done = fleet.roll("1.3.0")
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()
    # killed before it had the lock, it was no rollout yet
    assert len(first) == (0 if phase in BEFORE_THE_LOCK else 1)
    assert first in (set(), ids(fleet))
    assert fleet.verdict()["verdict"] == "completed"
    assert {fleet.verdict()["rollout_id"]} == ids(fleet)
    assert all(record_of(fleet, name)["lock"] is None for name in fleet.hosts())
    assert_nothing_lost(audit)


NEXT: dict[str, Callable[[Fleet], Any]] = {
    "again": lambda fleet: fleet.roll(FAILS_ITS_PROBE, solver_probe_retries=1),
    "recover": lambda fleet: fleet.playbook("recover", solver_probe_retries=1),
}


@pytest.mark.parametrize("then", NEXT)
@pytest.mark.parametrize("task", ["Drain the worker once more, as far as it answers",
                                  "Return to the previous release and restart",
                                  "Put the reverted worker back into service"])
def test_killed_while_a_worker_goes_back(make_fleet, task, then):
    """The release is bad, and the controller dies in the middle of the revert: it is never left running or held."""
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    log = Log(fleet)
    with watched(fleet, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        process = fleet.start_playbook("rolling_update", env=log.env, solver_version=FAILS_ITS_PROBE,
                                       solver_probe_retries=1)
        until(seen, task, lambda: log.at(task), process)
        kill(process)
        done = NEXT[then](fleet)
        assert set(fleet.versions().values()) == {"1.2.0"}, done.stdout
        fleet.assert_all_serve()
        again = fleet.playbook("recover")
    audit = fleet.end_traffic()
    assert (again.returncode, fleet.verdict()["verdict"]) == (0, "completed"), again.stdout
    assert all(record_of(fleet, name)["lock"] is None for name in fleet.hosts())
    fleet.assert_all_serve()
    assert_nothing_lost(audit)


def test_killed_while_the_whole_fleet_goes_back(make_fleet):
    """Run again, the rollout is still out of budget, and it still knows where those come from that it had updated."""
    fleet: Fleet = make_fleet(4)
    inventory = fleet.write_inventory("taken.yml", w3={"solver_data_port": fleet.hosts()["w4"]["solver_data_port"]})
    fleet.start_traffic(rate=8)
    log = Log(fleet)
    with watched(fleet) as seen:
        process = fleet.start_playbook("rolling_update", env=log.env, inventory=inventory, solver_version="1.3.0",
                                       solver_max_fail_percentage=0)
        until(seen, "the drain of a worker that goes back",
              lambda: log.at("Ask whether the wave may go back", "Roll back") and seen.last("w2").get("drain"),
              process, 200)
        kill(process)
        done = fleet.roll("1.3.0", inventory=inventory, solver_max_fail_percentage=0)
        assert fleet.verdict()["verdict"] == "rolled_back", done.stdout
    audit = fleet.end_traffic()
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "rolled_back", "w3": "failed", "w4": "not_attempted"}
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    assert_nothing_lost(audit)


@pytest.mark.parametrize("phase", ["draining", "switched"])
def test_a_run_that_ends_before_its_first_wave_leaves_nobody_in_the_drain_of_a_dead_one(make_fleet, tmp_path, phase):
    """It touches no further worker; one that a dead run left drained is brought back all the same."""
    fleet: Fleet = make_fleet(2)
    hook = tmp_path / "refuse.yml"
    hook.write_text("- name: Ask the change board\n  ansible.builtin.fail: {msg: not tonight}\n", encoding="utf-8")
    fleet.start_traffic(rate=6)
    with watched(fleet) as seen:
        kill_in(fleet, seen, phase, signal.SIGKILL)
        done = fleet.roll("1.3.0", solver_hooks={"before_rollout": str(hook)})
        assert fleet.verdict()["verdict"] == "aborted", done.stdout
        assert "not tonight" in fleet.verdict()["reasons"][0]
        assert set(fleet.versions().values()) == {"1.2.0"}, done.stdout
        fleet.assert_all_serve()
    audit = fleet.end_traffic()
    assert_nothing_lost(audit)


@pytest.mark.trap
@pytest.mark.parametrize(("phase", "version"), [("draining", "1.2.0"), ("switched", "1.3.0")])
def test_the_leases_alone_bring_every_worker_back(make_fleet, phase, version):
    """Expiry before the switch resumes; after it the worker verifies itself and then serves."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        kill_in(fleet, seen, phase, signal.SIGKILL, **LEASES)
        wait_for(lambda: seen.last("w1").get("state") == "running", "w1 in service again by its lease", 100)
    fleet.assert_all_serve()
    assert fleet.versions() == {"w1": version, "w2": "1.2.0"}


@pytest.mark.parametrize(("phase", "version"), [
    ("draining", "1.2.0"), ("switched", "1.3.0"), ("second wave", "1.3.0")])
def test_recover_brings_back_what_was_left(make_fleet, phase, version):
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        kill_in(fleet, seen, phase, signal.SIGKILL)
        done = fleet.playbook("recover")
        assert done.returncode == 0, done.stdout
        fleet.assert_all_serve()
        assert fleet.versions() == {"w1": version, "w2": "1.2.0"}
        boots = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
        again = fleet.playbook("recover")
        assert again.returncode == 0, again.stdout
        assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == boots
        assert record_of(fleet, "w1")["lock"] is None
        # the rollout goes on, and still knows where each worker came from
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert record_of(fleet, "w1")["rollout"]["from"]["version"] == "1.2.0"
    assert set(fleet.versions().values()) == {"1.3.0"}


def test_recover_reverts_what_cannot_be_verified_and_then_has_nothing_to_do(make_fleet):
    """The dead run had switched w1 to a release that serves, but cannot solve: it must neither serve nor stay held."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        process = fleet.start_playbook("rolling_update", solver_version=FAILS_ITS_PROBE)
        until(seen, "the new process of w1",
              lambda: seen.last("w1").get("instance", {}).get("version") == FAILS_ITS_PROBE, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        done = fleet.playbook("recover", solver_probe_retries=1)
        assert done.returncode != 0, done.stdout
        assert fleet.outcomes()["w1"] == "reverted", done.stdout
        assert set(fleet.versions().values()) == {"1.2.0"}
        fleet.assert_all_serve()
        again = fleet.playbook("recover")
    assert again.returncode == 0, again.stdout
    assert fleet.verdict()["verdict"] == "completed"


def test_a_controller_that_comes_back_is_fenced(make_fleet):
    """Stopped in the middle of a drain and taken for dead; when it wakes up another run has the lock."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        process = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_min_healthy_time=8)
        until(seen, "the soak of w1", lambda: PHASES["soaking"](seen), process)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            refused = fleet.roll("1.3.0")
            assert "solver_lock_steal: true" in refused.stdout
            assert refused.returncode != 0
            done = fleet.roll("1.3.0", solver_lock_steal=True, solver_reason="its laptop is shut")
            assert done.returncode == 0, done.stdout
            boots = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()}
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        out, _none = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "lock" in out
    assert {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.hosts()} == boots
    fleet.assert_all_serve()
