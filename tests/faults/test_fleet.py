# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts of real workers: the provider fails, workers are killed, hang, or see another clock, a disk fills."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from faultlib import (
    FAILS_ITS_PROBE,
    OTHER_CLOCK,
    RESUMES_SLOWLY,
    Events,
    Held,
    begin_a_revert,
    provider_faults,
    until,
    watched,
)
from fleetlib import Fleet, assert_nothing_lost, seen_verdict, wait_for


def test_a_provider_without_money_is_nobodys_fault(make_fleet):
    """Two workers updated, then the account runs dry: nothing is blamed, nothing rolled back, a later run goes on."""
    fleet: Fleet = make_fleet(3)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_probe_retries=1,
                                       solver_probe_timeout=8, solver_min_healthy_time=4)
        until("the soak of w1", lambda: seen.last("w1").get("accepting")
              and seen.last("w1")["instance"]["version"] == "1.3.0", running)
        provider_faults(fleet, [{"on": "in", "fault": "no_balance", "times": None},
                                {"on": "balance", "fault": "no_balance", "times": None}])
        out, _none = running.communicate(timeout=200)
        assert running.returncode != 0, out
        verdict = fleet.verdict()
        assert verdict["verdict"] == "inconclusive", out
        assert fleet.outcomes() == {"w1": "updated", "w2": "returned", "w3": "not_attempted"}
        fleet.assert_all_serve()
        assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.2.0"}
        provider_faults(fleet, None)
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["rollout_id"] == verdict["rollout_id"]


def test_a_soak_that_fails_while_another_worker_has_its_turn_keeps_the_window(make_fleet):
    """The worker serves outside of the window by then, so its revert waits for a place, before any further worker."""
    fleet: Fleet = make_fleet(4)
    fleet.start_traffic(rate=8)
    held, events = Held(fleet), Events(fleet)
    held.let_go("w1")
    with watched(fleet, killed=1) as seen:
        running = fleet.start_playbook("rolling_update", "--forks", "6", solver_version="1.3.0",
                                       solver_min_healthy_time=20, solver_max_soaking=2, **held.settings,
                                       **events.settings)
        until("the turn of w2 beside the soak of w1", lambda: events.find("admitted", worker="w2"), running)
        assert seen.last("w1")["accepting"]
        os.kill(fleet.status("w1")["instance"]["pid"], signal.SIGKILL)
        until("the end of the soak of w1", lambda: events.find("follow_up", worker="w1", action="revert"), running)
        assert events.find("step_ended", worker="w1", step="soak")[0]["ok"] is False
        begins = len(seen.samples)
        held.let_go("w2", "w3", "w4")
        out, _none = running.communicate(timeout=250)
    audit = fleet.end_traffic()
    assert fleet.outcomes() == {"w1": "reverted", "w2": "updated", "w3": "updated", "w4": "updated"}, out
    assert max(len(sample.out()) for sample in seen.samples[begins:]) == 1
    order = [(own["event"], own["worker"]) for own in events.all()
             if own["event"] in ("admitted", "outcome") and own["worker"] in ("w1", "w3")]
    assert order.index(("outcome", "w1")) < order.index(("admitted", "w3"))
    fleet.assert_all_serve()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit


def test_one_fork_suffices(make_fleet):
    """The gate of the next worker must not need a process while the only one is taken by who is in its turn."""
    fleet: Fleet = make_fleet(3)
    fleet.start_traffic(rate=6)
    with watched(fleet):
        done = fleet.roll("1.3.0", "--forks", "1", solver_min_healthy_time=2)
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["verdict"] == "completed"
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()
    assert_nothing_lost(audit)


PHASES = {
    "draining": lambda status: status.get("state") == "draining",
    "verifying": lambda status: (status.get("instance") or {}).get("version") == "1.3.0",
    "soaking": lambda status: status.get("accepting") and status["instance"]["version"] == "1.3.0",
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_in_its_update_serves_in_the_end(make_fleet, phase):
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    with watched(fleet, killed=1) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_min_healthy_time=5)
        until(phase, lambda: PHASES[phase](seen.last("w1")), running)
        os.kill(fleet.status("w1")["instance"]["pid"], signal.SIGKILL)
        out, _none = running.communicate(timeout=200)
    audit = fleet.end_traffic()
    wait_for(lambda: fleet.status("w1")["state"] == "running", "w1 in service", 60)
    fleet.assert_all_serve()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit
    good = set(fleet.outcomes().values()) <= {"updated", "already"}
    assert (running.returncode == 0) == good, out
    if phase != "draining":
        assert fleet.outcomes()["w1"] == "reverted", out


def test_a_worker_killed_while_it_is_reverted_serves_in_the_end(make_fleet):
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    assert fleet.roll(RESUMES_SLOWLY).returncode == 0
    with watched(fleet, killed=1, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        running = begin_a_revert(fleet, seen)
        os.kill(fleet.status("w1")["instance"]["pid"], signal.SIGKILL)
        out, _none = running.communicate(timeout=200)
        assert (running.returncode, fleet.verdict()["verdict"]) == (2, "aborted"), out
        assert fleet.outcomes() == {"w1": "reverted", "w2": "not_attempted"}, out
    audit = fleet.end_traffic()
    assert set(fleet.versions().values()) == {RESUMES_SLOWLY}
    fleet.assert_all_serve()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit


def test_a_worker_killed_while_the_fleet_goes_back_is_back_or_named(make_fleet):
    fleet: Fleet = make_fleet(3)
    inventory = fleet.write_inventory("taken.yml", w2={"solver_data_port": fleet.hosts()["w3"]["solver_data_port"]})
    fleet.start_traffic(rate=6)
    events = Events(fleet)
    with watched(fleet, killed=1) as seen:
        running = fleet.start_playbook("rolling_update", **events.settings, inventory=inventory, solver_version="1.3.0",
                                       solver_max_fail_percentage=0)
        until("the drain of w1 on its way back",
              lambda: events.find("admitted", part="back") and seen.last("w1").get("drain"), running, 200)
        os.kill(fleet.status("w1")["instance"]["pid"], signal.SIGKILL)
        out, _none = running.communicate(timeout=200)
        word = fleet.verdict()["verdict"]
        seen_verdict(word, running.returncode)
        assert running.returncode == 2, out
        assert (word == "rolled_back") == (fleet.outcomes()["w1"] == "rolled_back"), out
        if word != "rolled_back":
            assert word == "rollback_failed", out
            done = fleet.playbook("rollback", solver_only=["w1"])
            assert done.returncode == 0, done.stdout
    audit = fleet.end_traffic()
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit


def test_a_hung_worker_is_restarted_or_left_but_never_taken_for_drained(make_fleet):
    """SIGSTOP: its socket takes connections and never answers."""
    fleet: Fleet = make_fleet(3)
    pid = fleet.status("w2")["instance"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = fleet.roll("1.3.0", solver_control_timeout=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode != 0
    assert fleet.verdict()["workers"][1]["outcome"] in ("failed", "not_attempted", "quarantined")
    wait_for(lambda: fleet.status("w2")["state"] == "running", "w2 in service", 30)
    fleet.assert_all_serve()


def test_a_socket_that_may_not_be_used_refuses_the_rollout(make_fleet):
    """As another user, or, where only root can become one, with the rights of the socket taken away."""
    fleet: Fleet = make_fleet(2)
    another = {"ansible_become": True, "ansible_become_method": "su", "ansible_become_user": "nobody",
               "ansible_become_flags": "-s /bin/sh", "ansible_python_interpreter": "/usr/bin/python3"}
    inventory = fleet.write_inventory("denied.yml", w2=another if os.getuid() == 0 else {})
    denied = Path(fleet.socket("w2"))
    seqs = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    with contextlib.ExitStack() as stack:
        if os.getuid() == 0:
            # It may look at the worker's record, so that the socket alone is what is refused.
            record = fleet.dir / "fleet/workers/w2/rollout"
            parents = (fleet.dir / part for part in ("", "fleet", "fleet/workers", "fleet/workers/w2"))
            for path in (*parents, record, *record.rglob("*")):
                stack.callback(path.chmod, path.stat().st_mode)
                path.chmod(0o755)
        else:
            stack.callback(denied.chmod, denied.stat().st_mode)
            denied.chmod(0)
        done = fleet.roll("1.3.0", inventory=inventory)
    assert fleet.verdict()["verdict"] == "refused", done.stdout
    assert f"w2: access to '{denied}' is denied" in " ".join(fleet.verdict()["reasons"])
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == seqs


def test_a_disk_that_fills_while_staging_refuses_before_the_first_drain(make_fleet):
    """A limit on the size of files stands for a full disk: every write beyond it fails."""
    fleet: Fleet = make_fleet(2)
    # Its environment outlives the fleets of other tests; without it something is left to write.
    for path in (fleet.dir / "fleet/envs").glob("1.3.0-*"):
        shutil.rmtree(path)
    seqs = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    done = fleet.roll("1.3.0", prefix=("prlimit", "--fsize=300000"))
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "refused", done.stdout
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == seqs
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout


def test_a_wall_clock_that_is_set_ages_no_task_and_no_soak(make_fleet):
    """Each new process sees another wall clock than the one before: an hour ahead, and then an hour behind."""
    fleet: Fleet = make_fleet(2)
    fleet.start_traffic(rate=6)
    for off, version in zip((3600, -3600), OTHER_CLOCK, strict=True):
        for name, host in fleet.hosts().items():
            Path(host["solver_base_dir"], "workers", name, "off").write_text(str(off))
        with watched(fleet):
            done = fleet.roll(version, solver_drain_mode="handover", solver_min_healthy_time=4)
        assert done.returncode == 0, done.stdout
        timings = [worker["timings"]["soak"] for worker in fleet.verdict()["workers"]]
        assert max(timings) < 60, "a clock that went back must not make the soak longer"
    audit = fleet.end_traffic()
    # The audit holds the client's clock against the dates of workers whose clock is an hour behind, and calls what the
    # client read too late for it. What it got says its own book.
    book = [json.loads(line) for line in (fleet.dir / "book.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = {own["key"]: ("succeeded", own["expected"]) for own in book if own["event"] == "task"}
    assert len(expected) >= 20
    assert {own["key"]: (own["state"], own["solution"]) for own in book if own["event"] == "final"} == expected
    wrong = ("wrong", "billed_twice", "uncertain", "expired", "failed", "refused")
    assert all(audit[name] == 0 for name in wrong), audit
    fleet.assert_all_serve()
