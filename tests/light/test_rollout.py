# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout decides: who may begin, who holds the fleet, what is refused, who goes back, and the verdict's word.

What the workers do of themselves is in tests/faults.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from faultlib import Events, Held, Lines, ask, record_of, until
from fleetlib import EXIT_CODES, control, seen_verdict, signal_tree, wait_for
from lightfleet import LightFleet

# The shortest lease but one, with phases that fit into it.
LEASES = {"solver_drain_lease": 61, "solver_drain_timeout": 10, "solver_deploy_timeout": 30}


def look(fleet: LightFleet, name: str) -> dict[str, Any]:
    return ask(fleet.socket(name)) or {}


def assert_invariants(fleet: LightFleet, window: int = 1) -> None:
    assert fleet.most_out_at_once() <= window
    assert fleet.served_by_unverified() == []


def assert_all_run(fleet: LightFleet, version: str, window: int = 1) -> None:
    assert set(fleet.versions().values()) == {version}
    fleet.assert_all_serve()
    assert_invariants(fleet, window)


def flat(text: str) -> str:
    return " ".join(text.split())


# -- who holds the fleet


@pytest.mark.quick
@pytest.mark.trap
def test_two_operators_at_once(light_fleet: LightFleet) -> None:
    """The second is refused and told who is at work; or it waits, finds its work done, and is content."""
    fleet = light_fleet.up(2)
    held, events, waits = Held(fleet), Events(fleet), Events(fleet, "waits")
    first = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_reason="the night shift",
                                 **held.settings, **events.settings)
    until("the first turn", lambda: events.find("admitted", worker="w1"), first)
    late = Events(fleet, "late")
    second = fleet.roll("1.2.0", **late.settings)
    assert second.returncode != 0
    assert late.find("looked")
    assert late.find("staged") == [], "the lock is looked at before anything is staged"
    assert "the night shift" in flat(second.stdout)
    assert "solver_lock_wait" in second.stdout
    shown = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1"}
    waiting = fleet.start_playbook("rolling_update", env=shown, solver_version="1.3.0", solver_lock_wait=120,
                                   **waits.settings)
    until("a run that waits for the other", lambda: waits.find("waiting"), waiting)
    assert "the night shift" in waits.find("waiting")[0]["reason"]
    held.let_go("w1", "w2")
    for process in (first, waiting):
        out, _none = process.communicate(timeout=120)
        assert process.returncode == 0, out
    assert "TASK [Look once more, give the verdict" in out
    assert "TASK [Fail each worker" not in out, "a process for each worker, only to skip it"
    assert len(waits.find("admitted")) == 0
    assert_all_run(fleet, "1.3.0")


@pytest.mark.trap
def test_a_run_that_loses_the_race_for_the_lock_plans_again(light_fleet: LightFleet) -> None:
    """Another run takes the lock between its plan and its claim: it waits, and then goes by what it finds."""
    fleet = light_fleet.up(2)
    other = {"worker_dir": str(Path(fleet.hosts()["w1"]["solver_base_dir"], "workers/w1")), "rollout_id": "another",
             "run_id": "a1"}
    events = Events(fleet)
    process = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_lock_wait=200, **events.settings)
    until("its plan", lambda: events.find("planned"), process)
    signal_tree(process.pid, signal.SIGSTOP)
    try:
        assert fleet.module("w1", "solver.fleet.rollout_lock", **other)["ours"] is True
    finally:
        signal_tree(process.pid, signal.SIGCONT)
    until("a run that waits for the other", lambda: events.find("waiting"), process)
    assert fleet.status("w1")["drain"] is None
    fleet.module("w1", "solver.fleet.rollout_lock", state="released", **other)
    out, _none = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert len(events.find("planned")) == 2, out
    assert_all_run(fleet, "1.3.0")


@pytest.mark.trap
@pytest.mark.parametrize(("request_name", "verdict"), [
    ("pause", "paused"), ("abort", "aborted")])
def test_a_request_ends_the_rollout_before_its_next_worker(
    light_fleet: LightFleet, request_name: str, verdict: str,
) -> None:
    fleet = light_fleet.up(3)
    held, events = Held(fleet), Events(fleet)
    running = fleet.start_playbook("rolling_update", solver_version="1.3.0", **held.settings, **events.settings)
    until("the turn of w1", lambda: events.find("admitted", worker="w1"), running)
    asked = fleet.playbook(request_name, solver_reason="on the phone")
    assert asked.returncode == 0, asked.stdout
    seqs = {name: record_of(fleet, name)["seq"] for name in ("w2", "w3")}
    until("the next look at both", lambda: all(record_of(fleet, name)["seq"] > seq for name, seq in seqs.items()),
          running)
    held.let_go("w1", "w2", "w3")
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
    assert_all_run(fleet, "1.3.0")


@pytest.mark.quick
def test_a_request_without_a_rollout_says_so(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(1)
    done = fleet.playbook("pause")
    assert done.returncode != 0
    assert "No rollout is running" in done.stdout


@pytest.mark.trap
def test_an_inventory_that_lacks_a_worker_is_refused(light_fleet: LightFleet) -> None:
    """As a sliced job or a shortened inventory would look; two slices would drain twice the window."""
    fleet = light_fleet.up(3)
    assert fleet.roll("1.3.0").returncode == 0
    slice_ = fleet.write_inventory("slice.yml", without=["w3"])
    done = fleet.roll("1.2.0", inventory=slice_)
    assert done.returncode != 0
    assert "lacks w3" in flat(done.stdout)
    done = fleet.roll("1.2.0", inventory=slice_, solver_forget=["w3"])
    assert done.returncode == 0, done.stdout
    assert record_of(fleet, "w1")["roster"] == ["w1", "w2"]


@pytest.mark.trap
def test_two_slices_at_once_are_both_refused(light_fleet: LightFleet) -> None:
    """A sliced job runs the same playbook on several parts of the inventory at once; each would take a window."""
    fleet = light_fleet.up(4)
    # Provisioning leaves the roster with each worker; here a rollout of nothing does.
    assert fleet.roll("1.2.0").returncode == 0
    before = {name: fleet.status(name)["seq"] for name in fleet.hosts()}
    parts = (("w3", "w4"), ("w1", "w2"))
    running = [fleet.start_playbook("rolling_update", solver_version="1.3.0",
                                    inventory=fleet.write_inventory(f"without-{gone[0]}.yml", without=gone))
               for gone in parts]
    for process, gone in zip(running, parts, strict=True):
        out, _none = process.communicate(timeout=200)
        assert process.returncode != 0, out
        assert f"lacks {', '.join(gone)}" in flat(out), out
    assert {name: fleet.status(name)["seq"] for name in fleet.hosts()} == before
    assert set(fleet.versions().values()) == {"1.2.0"}


@pytest.mark.quick
def test_something_else_on_the_socket_refuses_the_rollout(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    fleet.set_fault("w2", garbage=True)
    done = fleet.roll("1.3.0", solver_control_timeout=1)
    fleet.heal()
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "refused", done.stdout
    assert "w2" in fleet.verdict()["reasons"][0]
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


@pytest.mark.quick
def test_check_changes_nothing_and_the_next_run_follows_its_plan(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)

    def state() -> tuple[dict[str, tuple[int, float]], dict[str, int]]:
        files = {str(path): (path.lstat().st_size, path.lstat().st_mtime)
                 for path in sorted((fleet.dir / "base").rglob("*"))}
        return files, {name: fleet.status(name)["seq"] for name in fleet.hosts()}

    before = state()
    done = fleet.roll("1.3.0", "--check", "--diff", solver_worker_config={"tasks": {"time_limit_s": 200}})
    assert done.returncode == 0, done.stdout
    assert state() == before
    assert "--- before: w1, w2, w3 (current, as w1)" in done.stdout
    for line in ("-# package: solver-worker 1.2.0", "+# package: solver-worker 1.3.0", "+time_limit_s = 200"):
        assert done.stdout.splitlines().count(line) == 1, done.stdout
    plan = fleet.verdict()
    assert plan["verdict"] == "planned"
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert fleet.verdict()["waves"] == plan["waves"] == [["w1", "w2", "w3"]]
    said = [line.partition(" updated 1.2.0 -> 1.3.0 in ") for line in done.stdout.splitlines()]
    lines = [name for name, found, _rest in said if found]
    assert lines == ["w1", "w2", "w3"], done.stdout
    record = record_of(fleet, "w1")
    assert record["lock"] is None
    assert record["roster"] == ["w1", "w2", "w3"]
    assert record["rollout"]["verdict"] == "completed"
    assert len(list((fleet.dir / "base/workers/w1/rollout/history").glob("*.json"))) == 1


# -- the window and the floor


def test_a_foreign_drain_refuses_or_is_left_out(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(4)
    code, _document = control(fleet.socket("w2"), "PUT", "/v1/drain", {"owner": "somebody", "reason": "disk swap"})
    assert code == 202
    done = fleet.roll("1.3.0")
    assert done.returncode != 0
    assert "disk swap" in flat(done.stdout)
    assert set(fleet.versions().values()) == {"1.2.0"}
    done = fleet.roll("1.3.0", solver_foreign_drain="exclude", solver_max_unavailable=2)
    assert done.returncode != 0  # the fleet is not at the target
    assert fleet.verdict()["verdict"] == "incomplete"
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.3.0", "w4": "1.3.0"}
    assert fleet.status("w2")["drain"]["owner"] == "somebody"
    assert_invariants(fleet, window=2)


def test_the_floor_is_kept_and_said_while_somebody_else_uses_the_window_up(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    code, _document = control(fleet.socket("w2"), "PUT", "/v1/drain", {"owner": "somebody", "reason": "disk swap"})
    assert code == 202
    events = Events(fleet)
    running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_foreign_drain="exclude",
                                   **events.settings)
    # nobody leaves service while w2 is out; with it back, w1 is updated
    until("a gate that waits", lambda: events.find("waiting", worker="w1"), running)
    assert "w2 is out of service" in events.find("waiting", worker="w1")[0]["reason"]
    assert events.find("admitted") == []
    assert look(fleet, "w1")["state"] == "running"
    assert control(fleet.socket("w2"), "DELETE", "/v1/drain?owner=somebody")[0] == 200
    out, _none = running.communicate(timeout=120)
    assert "waiting for workers" in out
    assert "w2 is out of service" in out
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0"}, out
    assert_invariants(fleet)


@pytest.mark.parametrize("size", [1, 9, 10])
def test_the_window_of_other_sizes_of_fleet(light_fleet: LightFleet, size: int) -> None:
    fleet = light_fleet.up(size)
    done = fleet.roll("1.3.0", "--forks", "10")
    assert done.returncode == 0, done.stdout
    assert sum(len(stage) for stage in fleet.verdict()["waves"]) == size
    assert fleet.verdict()["window"] == 1
    assert_all_run(fleet, "1.3.0")


# -- the budget


@pytest.mark.trap
@pytest.mark.parametrize("where", ["first", "last"])
def test_failed_and_unreachable_at_once_stop_the_rollout(light_fleet: LightFleet, where: str) -> None:
    """Ansible loses the stop when one host fails and another is lost in the same task of the same batch."""
    fleet = light_fleet.up(6)
    bad, lost = ("w1", "w2") if where == "first" else ("w5", "w6")
    fleet.set_fault(bad, version="1.3.0", probe="release")
    # It is cut off in its drain, and its lease of a minute ends in seconds.
    fleet.set_fault(lost, drain_s=60, lease_speed=10)
    lines, events = Lines(fleet), Events(fleet)
    inventory = fleet.write_inventory("bad.yml", **{lost: lines.host})
    running = fleet.start_playbook(
        "rolling_update", "--forks", "6", inventory=inventory, env=lines.env, solver_version="1.3.0",
        solver_max_unavailable=2, solver_max_fail_percentage=17, **LEASES, **events.settings)
    until(f"the drain of {lost}", lambda: look(fleet, lost).get("drain"), running, 200)
    lines.cut(lost)
    out, _none = running.communicate(timeout=200)
    assert running.returncode != 0, out
    outcomes = fleet.outcomes()
    assert outcomes[bad] == "reverted", out
    assert outcomes[lost] == "unreachable", out
    wait_for(lambda: look(fleet, lost).get("accepting"), f"{lost} in service again by its lease", 60)
    # The budget of one is exceeded by two, so nobody else is touched from then on, and the others go back.
    exceeded = max(event["clock"] for event in events.all() if event["event"] == "outcome" and event["part"] == "roll"
                   and event["worker"] in (bad, lost))
    begun = {event["worker"]: event["clock"] for event in events.all()
             if event["event"] == "admitted" and event["part"] == "roll"}
    assert max(begun.values()) < exceeded, events.all()
    untouched = {name for name in fleet.hosts() if name not in begun}
    assert {name for name, word in outcomes.items() if word == "not_attempted"} == untouched
    assert fleet.verdict()["verdict"] == ("rolled_back" if set(begun) - {bad, lost} else "aborted"), out
    fleet.assert_all_serve()
    assert_invariants(fleet, window=2)


@pytest.mark.quick
@pytest.mark.trap
def test_failures_of_several_workers_add_up_and_what_follows_an_abort_still_runs(light_fleet: LightFleet) -> None:
    """With ``serial: 1`` no percentage bears one failure; a rescued one never counts; an abort ends all later plays."""
    fleet = light_fleet.up(5)
    fleet.set_fault("w2", "w4", version="1.3.0", failed="PORT_TAKEN")
    done = fleet.roll("1.3.0")
    assert done.returncode != 0, done.stdout
    # One of five is borne, and the healthy neighbours are left alone; the second, two workers later, is too much.
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "reverted", "w3": "rolled_back", "w4": "reverted",
                                "w5": "not_attempted"}, done.stdout
    verdict = fleet.verdict()
    assert (verdict["verdict"], verdict["budget_percent"]) == ("rolled_back", 25)
    assert_all_run(fleet, "1.2.0")


def test_every_worker_in_flight_fails_and_the_verdict_is_still_given(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(4)
    fleet.set_fault(version="1.3.0", probe="release")
    done = fleet.roll("1.3.0", "--forks", "4", solver_max_unavailable=2, solver_probe_retries=1)
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "aborted"
    # One of four is borne, so a third may begin beside the second when the first has failed.
    tried = [word for word in fleet.outcomes().values() if word != "not_attempted"]
    assert tried in (["reverted"] * 2, ["reverted"] * 3), done.stdout
    assert_all_run(fleet, "1.2.0", window=2)


def test_a_provider_that_is_down_is_nobodys_fault_and_slow_is_waited_for(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(2)
    fleet.set_fault(probe="provider")
    done = fleet.roll("1.3.0", solver_probe_retries=1)
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "inconclusive", done.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    fleet.heal()
    fleet.set_fault(probe_s=4)
    done = fleet.roll("1.3.0", solver_probe_timeout=15)
    assert done.returncode == 0, done.stdout
    assert_all_run(fleet, "1.3.0")


def test_a_worker_that_is_lost_in_its_hook_is_unreachable(light_fleet: LightFleet, tmp_path: Path) -> None:
    """A play goes on over an unreachable task; what follows in the user's tasks and in ours must not hurt."""
    fleet = light_fleet.up(3)
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
    assert_all_run(fleet, "1.2.0")


def test_a_host_that_is_cut_off_in_its_update_comes_back_by_its_lease(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)
    fleet.set_fault("w1", drain_s=200, lease_speed=2)
    lines = Lines(fleet)
    inventory = fleet.write_inventory("lines.yml", w1=lines.host)
    running = fleet.start_playbook("rolling_update", inventory=inventory, env=lines.env, solver_version="1.3.0",
                                   solver_progress_deadline=61, solver_max_fail_percentage=40, **LEASES)
    until("the drain of w1", lambda: look(fleet, "w1").get("drain"), running)
    lines.cut("w1")
    out, _none = running.communicate(timeout=300)
    assert running.returncode != 0
    # the floor: w1 may hold our drain, so nobody else leaves service, and it cannot be seen to come back
    assert fleet.outcomes() == {"w1": "unreachable", "w2": "not_attempted", "w3": "not_attempted"}, out
    assert "out of service" in fleet.verdict()["reasons"][0]
    wait_for(lambda: look(fleet, "w1").get("state") == "running", "w1 in service by its lease", 60)
    fleet.heal()
    lines.mend("w1")
    done = fleet.roll("1.3.0", inventory=inventory, env=lines.env)
    assert done.returncode == 0, done.stdout
    assert_all_run(fleet, "1.3.0")


# -- going back


def test_on_abort_stop_leaves_the_updated_ones(light_fleet: LightFleet) -> None:
    fleet = light_fleet.up(3)
    fleet.set_fault("w2", version="1.3.0", failed="PORT_TAKEN")
    done = fleet.roll("1.3.0", solver_on_abort="stop", solver_max_fail_percentage=0)
    assert done.returncode != 0
    assert fleet.verdict()["verdict"] == "aborted"
    assert fleet.versions() == {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.2.0"}
    fleet.assert_all_serve()
    assert_invariants(fleet)


def test_a_rollback_that_fails_names_the_worker_and_leaves_it_serving(light_fleet: LightFleet) -> None:
    """What w1 came from is gone when it is to go back."""
    fleet = light_fleet.up(3)
    fleet.set_fault("w2", version="1.3.0", failed="PORT_TAKEN")
    before = Path(fleet.hosts()["w1"]["solver_base_dir"], "workers/w1/current").resolve()
    held, events = Held(fleet), Events(fleet)
    held.let_go("w1")
    running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_max_fail_percentage=0,
                                   **held.settings, **events.settings)
    until("the turn of w2", lambda: events.find("admitted", worker="w2"), running, 200)
    before.rename(fleet.dir / "away")
    held.let_go("w2")
    out, _none = running.communicate(timeout=200)
    assert (running.returncode, fleet.verdict()["verdict"]) == (2, "rollback_failed"), out
    seen_verdict("rollback_failed", running.returncode)
    assert fleet.outcomes() == {"w1": "rollback_failed", "w2": "reverted", "w3": "not_attempted"}, out
    fleet.assert_all_serve()
    assert fleet.versions()["w1"] == "1.3.0"
    (fleet.dir / "away").rename(before)
    done = fleet.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert_all_run(fleet, "1.2.0")


def test_a_hung_worker_is_rolled_back_by_force_when_it_is_named(light_fleet: LightFleet) -> None:
    """The way out of quarantine: what hangs takes no drain, and is ended where the operator names it; no other is."""
    fleet = light_fleet.up(3)
    assert fleet.roll("1.3.0").returncode == 0
    fleet.set_fault("w1", "w2", version="1.3.0", hang=True)
    done = fleet.playbook("rollback", solver_only="w1", solver_control_timeout=0.5)
    assert done.returncode == 0, done.stdout
    assert "its process is ended by force" in flat(done.stdout)
    assert fleet.status("w1")["instance"]["version"] == "1.2.0"
    # Without its name a hung worker is left alone, as in an update.
    assert fleet.playbook("rollback", solver_control_timeout=0.5).returncode != 0
    assert fleet.outcomes()["w2"] == "quarantined"
    fleet.heal()
    assert fleet.status("w2")["instance"]["version"] == "1.3.0"
