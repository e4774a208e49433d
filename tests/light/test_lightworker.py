# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the light worker has: faults on demand, exact counts, and an end with its parent."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._socket import Hung, exchange
from fleetlib import SOURCE, control, wait_for
from lightfleet import HERE, LightFleet, most_out_at_once, served_by_unverified
from lightworker.books import Books, Traffic

pytestmark = pytest.mark.quick


def probe(fleet: LightFleet, name: str = "w1", **more: Any) -> dict[str, Any]:
    body = {"request_id": f"{name}-{time.monotonic()}", **more}
    return dict(control(fleet.socket(name), "POST", "/v1/probe", body)[1])


def drain(fleet: LightFleet, name: str = "w1", **more: Any) -> dict[str, Any]:
    return dict(control(fleet.socket(name), "PUT", "/v1/drain", {"owner": "me", **more})[1])


def service(fleet: LightFleet, verb: str, name: str = "w1") -> subprocess.CompletedProcess[str]:
    """Run the command that the inventory names, as the service backend does."""
    return subprocess.run(fleet.hosts()[name]["solver_service"][verb], capture_output=True, text=True, check=False)


def test_the_commands_start_stop_and_tell(light_fleet: LightFleet) -> None:
    light_fleet.up(2)
    before = light_fleet.status("w1")["instance"]
    told = service(light_fleet, "status")
    assert (told.returncode, told.stdout) == (0, f"pid {before['pid']}\n")
    assert service(light_fleet, "stop").returncode == 0
    assert service(light_fleet, "status").returncode == 3
    assert not Path(light_fleet.socket("w1")).exists()
    assert service(light_fleet, "start").returncode == 0
    after = light_fleet.status("w1")["instance"]
    assert after["boot_id"] != before["boot_id"]
    assert after["pid"] != before["pid"]
    assert light_fleet.status("w2")["instance"]["restarts"] == 0


def test_after_a_take_over_the_second_slot_runs_the_worker(light_fleet: LightFleet) -> None:
    light_fleet.up(1)
    light_fleet.link("1.3.0", "w1", name="standby")
    own = Path(light_fleet.socket("w1")).with_name("s.sock")
    order = Path(light_fleet.socket("w1")).with_name("w1-standby.order")
    order.write_text(json.dumps({"socket": str(own), "owner": "me"}), encoding="utf-8")
    light_fleet.start_standby("w1")
    assert control(str(own), "POST", "/v1/probe", {"request_id": "p"})[1]["outcome"] == "succeeded"
    assert control(str(own), "POST", "/v1/standby/take-over", {"owner": "me"})[0] == 200
    assert service(light_fleet, "status").returncode == 3
    assert service(light_fleet, "stop").returncode == 0  # has nothing to stop
    before = light_fleet.status("w1")["instance"]
    assert before["version"] == "1.3.0"
    light_fleet.kill("w1")
    light_fleet.start_standby("w1")
    after = light_fleet.status("w1")
    assert (after["state"], after["instance"]["version"]) == ("running", "1.3.0")
    assert after["instance"]["boot_id"] != before["boot_id"]
    light_fleet.stop_standby("w1")
    assert service(light_fleet, "start").returncode == 0
    assert light_fleet.status("w1")["instance"]["version"] == "1.2.0"
    assert light_fleet.served_by_unverified() == []


def test_a_drain_takes_the_time_that_was_asked_for(light_fleet: LightFleet) -> None:
    light_fleet.up(3, drain_s=(0.3, 0.6), seed=7)
    times = [light_fleet.status(name)["solve_times"]["p99_s"] for name in light_fleet.hosts()]
    assert len(set(times)) == 3
    assert all(0.3 <= each <= 0.6 for each in times)
    assert drain(light_fleet)["tasks"]["open"] == 5
    wait_for(lambda: light_fleet.status("w1")["state"] == "drained", "the drain")
    events = [event for event in light_fleet.events() if event["worker"] == "w1" and "state" in event]
    took = events[-1]["at"] - events[-2]["at"]
    assert times[0] <= took < times[0] + 0.2, events
    light_fleet.up(3, drain_s=(0.3, 0.6), seed=7)
    assert times == [light_fleet.status(name)["solve_times"]["p99_s"] for name in light_fleet.hosts()]


def test_faults_hold_for_whom_they_name(light_fleet: LightFleet) -> None:
    light_fleet.up(3)
    light_fleet.set_fault("w1", probe="account")
    light_fleet.set_fault(version="1.3.0", status={"instance": {"version": "1.9.9"}, "totals": None})
    assert [probe(light_fleet, name)["outcome"] for name in light_fleet.hosts()] == ["failed", "succeeded", "succeeded"]
    light_fleet.link("1.3.0", "w2")
    light_fleet.stop("w2")
    light_fleet.start("w2")
    document = light_fleet.status("w2")
    assert document["instance"]["version"] == "1.9.9"
    assert "totals" not in document
    light_fleet.heal()
    assert light_fleet.versions() == {"w1": "1.2.0", "w2": "1.3.0", "w3": "1.2.0"}
    with pytest.raises(AssertionError, match="no such fault: mood"):
        light_fleet.set_fault(mood="bad")


@pytest.mark.parametrize(("kind", "error_class"), [
    ("release", "worker"), ("provider", "provider"), ("account", "account")])
def test_a_failed_probe_names_its_fault(light_fleet: LightFleet, kind: str, error_class: str) -> None:
    light_fleet.up(1)
    light_fleet.set_fault(probe=kind)
    assert probe(light_fleet)["error"]["class"] == error_class


def test_a_worker_hangs_talks_nonsense_and_recovers(light_fleet: LightFleet) -> None:
    light_fleet.up(1)
    light_fleet.set_fault("w1", garbage=True)
    with pytest.raises(http.client.HTTPException):
        light_fleet.status("w1")
    light_fleet.heal()
    light_fleet.set_fault("w1", hang=True)
    with pytest.raises(Hung):
        exchange(light_fleet.socket("w1"), "GET", "/v1/status", timeout=0.2)
    light_fleet.heal()
    assert light_fleet.status("w1")["state"] == "running"


def test_a_release_that_crashes_and_one_that_dies(light_fleet: LightFleet) -> None:
    light_fleet.up(2)
    light_fleet.set_fault("w1", crash=True)
    light_fleet.stop("w1")
    light_fleet.start("w1")
    assert service(light_fleet, "status").returncode == 1
    light_fleet.set_fault("w2", dies_after_s=0.1)
    wait_for(lambda: service(light_fleet, "status", "w2").returncode == 1, "w2 to die")
    with pytest.raises(ConnectionRefusedError):
        light_fleet.status("w2")
    assert most_out_at_once(light_fleet.events(), 2) == 2


def test_a_worker_that_fails_and_one_that_starts_slowly(light_fleet: LightFleet) -> None:
    light_fleet.up(2)
    light_fleet.set_fault("w1", failed="port_taken")
    light_fleet.set_fault("w2", start_s=0.3)
    for name in light_fleet.hosts():
        light_fleet.stop(name)
        light_fleet.start(name)
    document = light_fleet.status("w1")
    assert (document["state"], document["failure"]["code"], document["totals"]) == ("failed", "port_taken", None)
    assert control(light_fleet.socket("w1"), "PUT", "/v1/drain", {"owner": "me"})[0] == 503
    assert light_fleet.status("w2")["state"] == "starting"
    wait_for(lambda: light_fleet.status("w2")["state"] == "running", "w2 to serve")


def test_a_drain_and_a_stop_without_end(light_fleet: LightFleet) -> None:
    light_fleet.up(1, drain_s=0)
    light_fleet.set_fault(drain_s=math.inf, stop_s=math.inf)
    assert drain(light_fleet)["state"] == "draining"
    with subprocess.Popen(light_fleet.hosts()["w1"]["solver_service"]["stop"]) as stop:
        wait_for(lambda: light_fleet.status("w1")["state"] == "stopping", "the stop to begin")
        assert stop.poll() is None
        light_fleet.heal()
        assert stop.wait(10) == 0


def test_a_lease_that_runs_ends_when_its_clock_is_sped_up(light_fleet: LightFleet) -> None:
    light_fleet.up(1)
    drain(light_fleet, lease_s=900)
    light_fleet.set_fault(lease_speed=1e6)
    wait_for(lambda: light_fleet.status("w1")["state"] == "running", "the lease to end")


def test_the_books_balance_whenever_they_are_looked_at() -> None:
    books, at = Books(load=7, solve_s=0.5), 1000.0
    last: dict[str, int] = {}
    for step in range(400):
        accepting = step // 50 % 2 == 0
        at += 0.037
        books.advance(at, accepting, drain_s=1.0, traffic=Traffic(error_share=0.1, provider_share=0.5))
        ended = sum(books.totals[name] for name in ("succeeded", "failed", "uncertain", "expired"))
        assert books.totals["accepted"] == ended + books.open
        assert all(books.totals[name] >= value for name, value in last.items())
        assert books.open == 7 if accepting else books.open <= 7
        last = dict(books.totals)
    assert books.open == 0
    assert books.totals["failed"] == pytest.approx(0.1 * books.totals["accepted"], abs=1)


def test_who_was_out_is_counted_exactly() -> None:
    def now(worker: str, state: str) -> dict[str, Any]:
        return {"worker": worker, "state": state}

    events = [now(name, state) for state in ("starting", "running") for name in ("a", "b", "c")]
    assert most_out_at_once(events, 3) == 0
    events += [now("a", "draining"), now("a", "drained"), now("b", "stopped"), now("a", "running"), now("c", "dead")]
    assert most_out_at_once(events, 3) == 2
    with pytest.raises(AssertionError, match="at no time"):
        most_out_at_once(events, 4)


def test_who_served_unverified_is_found() -> None:
    def now(version: str, **more: Any) -> dict[str, Any]:
        return {"worker": "a", "version": version, **more}

    events = [now("1", state="running", accepting=True), now("2", state="drained", accepting=False)]
    good = [*events, now("2", probe="failed"), now("2", probe="succeeded"), now("2", state="running", accepting=True)]
    assert served_by_unverified([*good, now("1", state="running", accepting=True)]) == []
    bad = [*events, now("2", probe="failed"), now("2", state="running", accepting=True)]
    assert served_by_unverified(bad) == [("a", "2")]


def test_the_process_ends_with_its_parent(light_fleet: LightFleet, tmp_path: Path) -> None:
    light_fleet.up(1)
    wanted = {"admin": str(tmp_path / "a"), "log": str(tmp_path / "log"), "run_dir": str(tmp_path), "workers": []}
    parent = ("import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'lightworker'], "
              "stdin=subprocess.PIPE, stdout=subprocess.PIPE); p.stdin.write(sys.argv[1].encode() + b'\\n'); "
              "p.stdin.flush(); p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", parent, json.dumps(wanted)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": f"{HERE}:{SOURCE / 'src'}"}) as run:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        os.kill(child, 0)
        run.kill()
    wait_for(lambda: not tmp_path.exists(), "the process to clear up")


def test_a_thousand_workers_answer_from_one_small_process(light_fleet: LightFleet) -> None:
    light_fleet.up(1000)
    light_fleet.assert_all_serve()
    assert light_fleet.memory_mb() < 100


def test_it_ends_without_a_word_while_clients_come(light_fleet: LightFleet) -> None:
    light_fleet.up(2)
    process = light_fleet._process
    assert process is not None
    assert process.stdin is not None
    process.send_signal(signal.SIGSTOP)  # so that it meets them and its end in one moment
    clients = [socket.socket(socket.AF_UNIX) for _number in range(40)]
    for client in clients:
        client.connect(light_fleet.socket("w1"))
    process.stdin.close()
    process.send_signal(signal.SIGCONT)
    light_fleet.down()  # says what it logged
    for client in clients:
        client.close()
