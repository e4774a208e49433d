# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollout as a whole: lock, requests, budget, floor, provider, workers killed under it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from faultlib import FAILS_ITS_PROBE, LEASES, OTHER_CLOCK, Lines, Log, provider_faults, record_of, until, watched
from fleetlib import EXIT_CODES, Fleet, assert_nothing_lost, control, seen_verdict, wait_for


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read what a run says up to the line with these words."""
    assert process.stdout is not None
    said = []
    for line in iter(process.stdout.readline, ""):
        said.append(line)
        if words in line:
            return said
    raise AssertionError("".join(said))


@pytest.mark.trap
@pytest.mark.quick
def test_two_operators_at_once(make_fleet):
    """The second is refused and told who is at work; or it waits, finds its work done, and is content."""
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        first = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_min_healthy_time=6,
                                     solver_reason="the night shift")
        until(seen, "the first drain", lambda: seen.last("w1").get("drain"), first)
        second = fleet.roll("1.2.0")
        assert second.returncode != 0
        assert "the night shift" in " ".join(second.stdout.split())
        assert "solver_lock_wait" in second.stdout
        waiting = fleet.roll("1.3.0", solver_lock_wait=120)
        out, _none = first.communicate(timeout=120)
    assert first.returncode == 0, out
    assert waiting.returncode == 0, waiting.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}


@pytest.mark.trap
def test_a_run_that_loses_the_race_for_the_lock_plans_again(make_fleet):
    """Another run takes the lock between its plan and its claim: it waits, and then goes by what it finds."""
    fleet: Fleet = make_fleet(2)
    other = {"worker_dir": str(fleet.dir / "fleet/workers/w1"), "rollout_id": "another", "run_id": "a1"}
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_lock_wait=200)
    assert process.stdout is not None
    said = read_until(process, "wave 2: w2")
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        assert fleet.module("w1", "solver.fleet.rollout_lock", **other)["ours"] is True
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    said += read_until(process, "RETRYING")
    assert fleet.status("w1")["drain"] is None
    fleet.module("w1", "solver.fleet.rollout_lock", state="released", **other)
    said += process.stdout.readlines()
    assert process.wait(60) == 0, "".join(said)
    assert len([line for line in said if "wave 2: w2" in line]) == 2, "".join(said)
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()


@pytest.mark.trap
@pytest.mark.parametrize(("request_name", "verdict"), [("pause", "paused"), ("abort", "aborted")])
def test_a_request_ends_the_rollout_before_its_next_wave(make_fleet, request_name, verdict):
    fleet: Fleet = make_fleet(3)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_min_healthy_time=6)
        until(seen, "the soak of w1", lambda: seen.last("w1").get("accepting")
              and seen.last("w1")["instance"]["version"] == "1.3.0", running)
        asked = fleet.playbook(request_name, solver_reason="on the phone")
        assert asked.returncode == 0, asked.stdout
        out, _none = running.communicate(timeout=120)
        assert (fleet.verdict()["verdict"], running.returncode) == (verdict, EXIT_CODES[verdict]), out
        seen_verdict(verdict, running.returncode)
        assert "on the phone" in fleet.verdict()["reasons"][0]
        assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.2.0"}
        fleet.assert_all_serve()
        assert record_of(fleet, "w1")["lock"] is None
        rollout = fleet.verdict()["rollout_id"]
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["rollout_id"] == rollout


def test_a_request_without_a_rollout_says_so(make_fleet):
    fleet: Fleet = make_fleet(1)
    done = fleet.playbook("pause")
    assert done.returncode != 0
    assert "No rollout is running" in done.stdout


@pytest.mark.trap
def test_an_inventory_that_lacks_a_worker_is_refused(make_fleet):
    """As a sliced job or a shortened inventory would look; two slices would drain twice the window."""
    fleet: Fleet = make_fleet(3)
    assert fleet.roll("1.3.0").returncode == 0
    text = fleet.inventory.read_text(encoding="utf-8")
    slice_ = fleet.dir / "slice.yml"
    slice_.write_text("".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith("w3:")))
    done = fleet.playbook("rolling_update", inventory=slice_, solver_version="1.2.0")
    assert done.returncode != 0
    assert "lacks w3" in " ".join(done.stdout.split())
    done = fleet.playbook("rolling_update", inventory=slice_, solver_version="1.2.0", solver_forget=["w3"])
    assert done.returncode == 0, done.stdout
    assert record_of(fleet, "w1")["roster"] == ["w1", "w2"]


def test_a_foreign_drain_refuses_or_is_left_out(make_fleet):
    fleet: Fleet = make_fleet(4)
    code, _document = control(fleet.socket("w2"), "PUT", "/v1/drain", {"owner": "somebody", "reason": "disk swap"})
    assert code == 202
    done = fleet.roll("1.3.0")
    assert done.returncode != 0
    assert "disk swap" in " ".join(done.stdout.split())
    assert set(fleet.versions().values()) == {"1.2.0"}
    with watched(fleet, window=2):
        done = fleet.roll("1.3.0", solver_foreign_drain="exclude", solver_max_unavailable=2)
    assert done.returncode != 0  # the fleet is not at the target
    assert fleet.verdict()["verdict"] == "incomplete"
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.3.0", "w4": "1.3.0"}
    assert fleet.status("w2")["drain"]["owner"] == "somebody"


def test_the_floor_is_kept_and_said_while_somebody_else_uses_the_window_up(make_fleet):
    fleet: Fleet = make_fleet(2)
    with watched(fleet) as seen:
        code, _document = control(fleet.socket("w2"), "PUT", "/v1/drain", {"owner": "somebody", "reason": "disk swap"})
        assert code == 202
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_foreign_drain="exclude")
        wait_for(lambda: record_of(fleet, "w1")["lock"] if (fleet.dir / "fleet/workers/w1/rollout/record.json").exists()
                 else None, "the lock", 120)
        # nobody leaves service while w2 is out; with it back, w1 is updated
        wait_for(lambda: record_of(fleet, "w1")["seq"] > 3, "a few looks of the gate", 60)
        assert seen.last("w1")["state"] == "running"
        assert control(fleet.socket("w2"), "DELETE", "/v1/drain?owner=somebody")[0] == 200
        out, _none = running.communicate(timeout=120)
    assert "waiting for workers" in out
    assert "w2 is out of service" in out
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0"}, out


@pytest.mark.trap
@pytest.mark.parametrize("where", ["first", "last"])
def test_failed_and_unreachable_in_one_wave_stop_the_rollout(make_fleet, where):
    """Ansible loses the stop when one host fails and another is lost in the same task of the same batch."""
    fleet: Fleet = make_fleet(6)
    bad, lost = ("w1", "w2") if where == "first" else ("w5", "w6")
    lines = Lines(fleet)
    inventory = fleet.write_inventory("bad.yml", **{
        bad: {"solver_worker_config": {**fleet.hosts()[bad]["solver_worker_config"], "tasks": {"time_limit_s": 299.0}},
              "solver_data_port": fleet.hosts()["w4" if where == "first" else "w1"]["solver_data_port"]},
        lost: lines.host})
    with watched(fleet, window=2) as seen:
        running = fleet.start_playbook(
            "rolling_update", "--forks", "6", inventory=inventory, env=lines.env, solver_version="1.3.0",
            solver_max_unavailable=2, solver_max_fail_percentage=17, **LEASES)
        until(seen, f"the drain of {lost}", lambda: seen.last(lost).get("drain"), running, 200)
        lines.cut(lost)
        out, _none = running.communicate(timeout=200)
        assert running.returncode != 0, out
        outcomes = fleet.outcomes()
        assert outcomes[bad] == "reverted", out
        assert outcomes[lost] == "unreachable", out
        wait_for(lambda: seen.last(lost).get("accepting"), f"{lost} in service again by its lease", 100)
    # the budget of one is exceeded by two, so nobody else is touched, and the others go back
    assert fleet.verdict()["verdict"] == ("aborted" if where == "first" else "rolled_back"), out
    assert {name for name, word in outcomes.items() if word == "not_attempted"} == (
        {"w3", "w4", "w5", "w6"} if where == "first" else set())
    fleet.assert_all_serve()


def test_a_worker_that_is_lost_in_its_hook_is_unreachable(make_fleet, tmp_path):
    """A play goes on over an unreachable task; what follows in the user's tasks and in ours must not hurt."""
    fleet: Fleet = make_fleet(3)
    lines = Lines(fleet)
    inventory = fleet.write_inventory("lines.yml", w1=lines.host)
    hook = tmp_path / "lose.yml"
    hook.write_text(f"""\
- name: Lose the line
  ansible.builtin.file: {{path: {lines.folder}/w1.cut, state: touch}}
  delegate_to: localhost
  when: inventory_hostname == 'w1'
- name: Meet a dead line
  ansible.builtin.ping:
""", encoding="utf-8")
    done = fleet.roll("1.3.0", inventory=inventory, env=lines.env, solver_hooks={"before_worker": str(hook)})
    assert done.returncode != 0, done.stdout
    assert fleet.outcomes() == {"w1": "unreachable", "w2": "not_attempted", "w3": "not_attempted"}, done.stdout
    verdict = fleet.verdict()
    assert (verdict["verdict"], verdict["workers"][0]["cause"]) == ("aborted", "host"), verdict
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


def test_a_host_that_is_cut_off_in_its_update_comes_back_by_its_lease(make_fleet):
    fleet: Fleet = make_fleet(3)
    lines = Lines(fleet)
    inventory = fleet.write_inventory("lines.yml", w1=lines.host)
    with watched(fleet, window=2) as seen:
        running = fleet.start_playbook("rolling_update", inventory=inventory, env=lines.env, solver_version="1.3.0",
                                       solver_progress_deadline=160, **LEASES)
        until(seen, "the drain of w1", lambda: seen.last("w1").get("drain"), running)
        lines.cut("w1")
        out, _none = running.communicate(timeout=300)
    assert running.returncode != 0
    # the floor: w1 may hold our drain, so nobody else leaves service, and it cannot be seen to come back
    assert fleet.outcomes()["w1"] == "unreachable", out
    assert fleet.outcomes()["w2"] == "not_attempted", out
    wait_for(lambda: fleet.status("w1")["state"] == "running", "w1 in service by its lease", 100)
    lines.mend("w1")
    done = fleet.playbook("rolling_update", inventory=inventory, env=lines.env, solver_version="1.3.0")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}


def test_every_worker_of_a_wave_fails_and_the_verdict_is_still_given(make_fleet):
    fleet: Fleet = make_fleet(4)
    with watched(fleet, window=2, never_accepts=(FAILS_ITS_PROBE,)):
        done = fleet.roll(FAILS_ITS_PROBE, "--forks", "4", solver_max_unavailable=2, solver_probe_retries=1)
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "aborted"
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


@pytest.mark.quick
def test_a_provider_without_money_is_nobodys_fault(make_fleet):
    """Two workers updated, then the account runs dry: nothing is blamed, nothing rolled back, a later run goes on."""
    fleet: Fleet = make_fleet(3)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_probe_retries=1,
                                       solver_probe_timeout=8, solver_min_healthy_time=4)
        until(seen, "the soak of w1", lambda: seen.last("w1").get("accepting")
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


def test_a_provider_that_is_down_is_nobodys_fault_and_slow_is_waited_for(make_fleet):
    fleet: Fleet = make_fleet(2)
    provider_faults(fleet, [{"on": "in", "fault": "ERROR_NO_SLOT_AVAILABLE", "times": None}])
    with watched(fleet):
        done = fleet.roll("1.3.0", solver_probe_retries=1, solver_probe_timeout=5)
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "inconclusive", done.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    provider_faults(fleet, None)
    provider_faults(fleet, [{"on": "in", "fault": "slow", "seconds": 4, "times": None}])
    with watched(fleet):
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout


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
        until(seen, phase, lambda: PHASES[phase](seen.last("w1")), running)
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
    log = Log(fleet)
    with watched(fleet, killed=1, never_accepts=(FAILS_ITS_PROBE,)) as seen:
        running = fleet.start_playbook("rolling_update", env=log.env, solver_version=FAILS_ITS_PROBE,
                                       solver_probe_retries=1)
        until(seen, "its old release, held", lambda: log.at("Return to the previous release and restart")
              and seen.last("w1").get("drain") and seen.last("w1")["instance"]["version"] == "1.2.0", running)
        os.kill(fleet.status("w1")["instance"]["pid"], signal.SIGKILL)
        out, _none = running.communicate(timeout=200)
        assert (running.returncode, fleet.verdict()["verdict"]) == (2, "aborted"), out
        assert fleet.outcomes() == {"w1": "reverted", "w2": "not_attempted"}, out
    audit = fleet.end_traffic()
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit


def test_a_worker_killed_while_the_fleet_goes_back_is_back_or_named(make_fleet):
    fleet: Fleet = make_fleet(3)
    inventory = fleet.write_inventory("taken.yml", w2={"solver_data_port": fleet.hosts()["w3"]["solver_data_port"]})
    fleet.start_traffic(rate=6)
    log = Log(fleet)
    with watched(fleet, killed=1) as seen:
        running = fleet.start_playbook("rolling_update", env=log.env, inventory=inventory, solver_version="1.3.0",
                                       solver_max_fail_percentage=0)
        until(seen, "the drain of w1 on its way back",
              lambda: log.at("Drain the worker", "Roll back") and seen.last("w1").get("drain"), running, 200)
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


def test_a_rollback_that_fails_names_the_worker_and_leaves_it_serving(make_fleet):
    """What w1 came from is gone when it is to go back."""
    fleet: Fleet = make_fleet(3)
    inventory = fleet.write_inventory("taken.yml", w2={"solver_data_port": fleet.hosts()["w3"]["solver_data_port"]})
    before = Path(fleet.hosts()["w1"]["solver_base_dir"], "workers/w1/current").resolve()
    log = Log(fleet)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", env=log.env, inventory=inventory, solver_version="1.3.0",
                                       solver_max_fail_percentage=0)
        until(seen, "the end of the waves", lambda: log.at("Decide which workers return to where they came from"),
              running, 200)
        before.rename(fleet.dir / "away")
        out, _none = running.communicate(timeout=200)
        assert (running.returncode, fleet.verdict()["verdict"]) == (2, "rollback_failed"), out
        seen_verdict("rollback_failed", running.returncode)
        assert fleet.outcomes() == {"w1": "rollback_failed", "w2": "reverted", "w3": "not_attempted"}, out
        fleet.assert_all_serve()
        assert fleet.versions()["w1"] == "1.3.0"
        (fleet.dir / "away").rename(before)
        done = fleet.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


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


def test_something_else_on_the_socket_refuses_the_rollout(make_fleet):
    fleet: Fleet = make_fleet(2)
    garbage = fleet.dir / "g.sock"
    with socket.socket(socket.AF_UNIX) as server:
        garbage.unlink(missing_ok=True)
        server.bind(str(garbage))
        server.listen()
        inventory = fleet.write_inventory("garbage.yml", w2={"solver_control_socket": str(garbage)})
        done = fleet.playbook("rolling_update", inventory=inventory, solver_version="1.3.0", solver_control_timeout=1)
    garbage.unlink()
    assert done.returncode != 0
    assert set(fleet.versions().values()) == {"1.2.0"}


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


@pytest.mark.parametrize("size", [1, 9, 10])
def test_the_window_of_other_sizes_of_fleet(make_fleet, size):
    fleet: Fleet = make_fleet(size)
    fleet.start_traffic(rate=4, at_least_open=0)
    with watched(fleet, window=1):
        done = fleet.roll("1.3.0", "--forks", "10")
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert len(fleet.verdict()["waves"]) == size
    assert_nothing_lost(audit, at_least=10) if size > 1 else None
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0


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
