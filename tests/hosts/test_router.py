# SPDX-License-Identifier: GPL-3.0-or-later
"""Three workers on two hosts behind a real HAProxy on a third, rolled under the load of eight clients."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faultlib import LEASES, until, watched
from fleetlib import control, wait_for
from hostlib import HostFleet, recap
from lab import Host


def rows(fleet: HostFleet) -> dict[str, dict[str, str]]:
    """What HAProxy itself counts of new tasks: its front, and each worker."""
    lines = fleet.haproxy("show stat").splitlines()
    found = [dict(zip(lines[0].removeprefix("# ").split(","), line.split(","), strict=False)) for line in lines[1:]]
    return {row["svname"]: row for row in found if row.get("pxname") == "solver"}


def view(fleet: HostFleet) -> dict[str, str]:
    """What HAProxy itself says of each worker, by the test's own eyes."""
    return {name: row["status"] for name, row in rows(fleet).items()
            if name not in ("FRONTEND", "BACKEND") and row["check_status"]}


def process(fleet: HostFleet) -> str:
    """The process of HAProxy that takes connections now."""
    return fleet.haproxy("show info").split("\nPid: ")[1].split()[0]


def new_processes(fleet: HostFleet, before: dict[str, str]) -> bool:
    try:
        return all(fleet.status(name)["instance"]["boot_id"] != before[name] for name in fleet.workers)
    except (OSError, AssertionError):
        return False


def task(key: str) -> bytes:
    return json.dumps({"method": "userrecaptcha", "googlekey": f"k-{key}", "pageurl": "https://shop.test/"}).encode()


def post(fleet: HostFleet, key: str, timeout: float = 20) -> tuple[int, dict[str, Any], str]:
    request = urllib.request.Request(
        f"{fleet.router_url()}/v1/tasks", data=task(key), method="POST",
        headers={"Content-Type": "application/json", "Idempotency-Key": key, "Authorization": f"Bearer {fleet.token}"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read()), answer.headers["X-Solver-Worker"]
    except urllib.error.HTTPError as problem:
        return problem.code, json.loads(problem.read()), problem.headers.get("X-Solver-Worker", "")


def test_the_router_is_put_in_front(fleet: HostFleet) -> None:
    fleet.place(w1="h1", w2="h2", w3="h1")
    fleet.route("r1")
    # The same of the workers: test_the_first_fleet.
    plan = fleet.playbook("provision", "--check", "--diff", "--limit", "r1", solver_version="1.2.0")
    assert plan.returncode == 0, plan.stdout
    assert recap(plan.stdout)["changed"] > 0, plan.stdout
    assert fleet.router.ssh("test -e /etc/systemd/system/solver-router.service").returncode == 1
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    wait_for(lambda: view(fleet) == {"w1": "UP", "w2": "UP", "w3": "UP"}, "three workers behind the router")
    again = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0")
    assert again.returncode == 0, again.stdout
    counted = recap(again.stdout)
    assert (counted["changed"], counted["ok"] > 0) == (0, True), again.stdout
    answer = fleet.module("r1", "solver.fleet.router_info")
    assert answer["serving"] == ["w1", "w2", "w3"], answer
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{fleet.router_url()}/metr%69cs", timeout=20)


def test_a_rollout_through_the_router_refuses_nothing(fleet: HostFleet) -> None:
    """Small bodies and images of 60 kB side by side, as a router in front of a real fleet gets them."""
    fleet.start_clients(8, image_bytes=60_000)
    for version in ("1.3.0", "1.2.0"):
        with watched(fleet):
            done = fleet.roll(version, solver_drain_grace=2, solver_floor_view="routers")
        assert done.returncode == 0, done.stdout
        assert set(fleet.versions().values()) == {version}
    audit = fleet.end_traffic()
    client, methods = fleet.report()["client"], fleet.accepted_by_method()
    print("8 clients, bodies of about 130 B (userrecaptcha) and of 60 kB (base64), three workers rolled twice:",
          json.dumps({**audit, **client, "by_method": methods}))
    assert min(methods["userrecaptcha"], methods["base64"]) >= 50, methods
    assert client["tasks"] >= 100, client
    assert client["declined"] == 0, fleet.refusals()
    assert audit["answered"] == audit["accepted"] >= 100, audit
    for name in ("refused", "lost", "wrong", "billed_twice", "uncertain", "failed", "expired"):
        assert audit[name] == 0, (name, audit)


def switch(fleet: HostFleet, playbook: str, version: str, standbys: str, **words: Any) -> None:
    """Run PLAYBOOK: all workers are new processes on VERSION, in their own units, and their STANDBYS active or not."""
    before = {worker: fleet.status(worker)["instance"]["boot_id"] for worker in fleet.workers}
    done = fleet.playbook(playbook, solver_floor_view="routers", solver_drain_grace=2, **words)
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {version}
    assert new_processes(fleet, before)
    for worker, (host, _port) in fleet.workers.items():
        assert host.ssh(f"systemctl is-active solver-worker@{worker}").stdout.strip() == "active"
        assert host.ssh(f"systemctl is-active solver-standby@{worker}").stdout.strip() == standbys, (playbook, worker)


def assert_no_client_noticed(fleet: HostFleet, what: str) -> None:
    audit = fleet.end_traffic()
    client = fleet.report()["client"]
    print(f"8 clients, three workers, {what}:", json.dumps({**audit, **client}))
    assert client["declined"] == 0, fleet.refusals()
    assert audit["answered"] == audit["accepted"] >= 30, audit
    for name in ("refused", "lost", "wrong", "billed_twice", "uncertain", "failed", "expired"):
        assert audit[name] == 0, (name, audit)


def test_standbys_take_over_behind_the_router(fleet: HostFleet) -> None:
    """A slot is given to workers that serve; then one by one, and nobody ever leaves service."""
    fleet.write(solver_standby=True)
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    again = fleet.playbook("provision", solver_version="1.2.0")
    assert recap(again.stdout)["changed"] == 0, again.stdout
    fleet.start_clients(8)
    switch(fleet, "rolling_update", "1.3.0", "inactive", solver_switch="standby", solver_version="1.3.0")
    assert_no_client_noticed(fleet, "a rolling update by standbys")


@pytest.mark.long
def test_blue_stands_by_behind_the_router(fleet: HostFleet) -> None:
    """All at once, and back."""
    fleet.start_clients(8)
    switch(fleet, "blue_green_update", "1.2.0", "active", solver_version="1.2.0")
    switch(fleet, "rollback", "1.3.0", "inactive")
    assert_no_client_noticed(fleet, "a blue-green update and back")


def test_a_slot_is_taken_from_workers_that_serve(fleet: HostFleet) -> None:
    fleet.write(solver_standby=False)
    before = {worker: fleet.status(worker)["instance"]["boot_id"] for worker in fleet.workers}
    for changes in (True, False):
        done = fleet.playbook("provision", solver_version="1.3.0")
        assert done.returncode == 0, done.stdout
        assert bool(recap(done.stdout)["changed"]) == changes, done.stdout
    assert {worker: fleet.status(worker)["instance"]["boot_id"] for worker in fleet.workers} == before
    for worker, (host, _port) in fleet.workers.items():
        assert not host.ssh(f"ls -d /usr/local/lib/systemd/system/solver-standby@{worker}* || true").stdout.strip()


def test_a_reload_drops_no_connection_and_forgets_nothing(fleet: HostFleet) -> None:
    status, document, owner = post(fleet, "before-the-reload")
    assert status == 202, document
    fleet.start_clients(8)
    drain = {"owner": "test", "grace_s": 3, "lease_s": 60, "deadline_s": 60}
    assert control(fleet.socket(owner), "PUT", "/v1/drain", drain)[0] == 202
    wait_for(lambda: view(fleet)[owner] == "NOLB", f"the router to see {owner} drain")
    first = process(fleet)
    for _number in range(3):
        fleet.on_router("systemctl reload solver-router")
        assert view(fleet)[owner].startswith("NOLB"), "a new process does not send tasks to a draining worker"
    assert process(fleet) != first
    status, again, named = post(fleet, "before-the-reload")
    assert (status, again["id"], named) == (200, document["id"], owner), "a key stays with its worker"
    control(fleet.socket(owner), "DELETE", "/v1/drain?owner=test")
    wait_for(lambda: view(fleet)[owner] == "UP", f"{owner} to get tasks again")
    fleet.wait_for_accepted(40)
    audit = fleet.end_traffic()
    assert audit["lost"] == audit["wrong"] == audit["refused"] == 0, audit
    assert fleet.report()["client"]["declined"] == 0, fleet.refusals()
    assert audit["answered"] == audit["accepted"] > 20, audit


def across_a_reload(fleet: HostFleet, head: str, body: bytes = b"") -> tuple[int, bytes, http.client.HTTPResponse]:
    """Send the head but its end, let a reload come, and send the rest: only the process that then ends can answer."""
    assert fleet.router is not None
    first = process(fleet)
    with socket.create_connection((fleet.router.address, 8090), 20) as line:
        line.sendall(f"{head}\r\nHost: router\r\nAuthorization: Bearer {fleet.token}\r\n".encode())
        wait_for(lambda: rows(fleet)["FRONTEND"]["scur"] == "1", "the router to have the connection")
        fleet.on_router("systemctl reload solver-router")
        wait_for(lambda: process(fleet) != first, "the next process")
        line.sendall(b"\r\n" + body)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, answer.read(), answer


def test_what_a_reload_meets_half_way_the_next_process_answers(fleet: HostFleet) -> None:
    """In a process that ends, HAProxy counts no server, and nobody hears any more which keys it learns."""
    key, body = "half-way", task("half-way")
    status, told, answer = across_a_reload(
        fleet, f"POST /v1/tasks HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}", body)
    assert status == 202, told
    accepted, owner = json.loads(told)["id"], answer.headers["X-Solver-Worker"]
    # Of three workers, one would be the right one by luck.
    digest = hashlib.sha256(key.encode()).hexdigest().upper()
    assert digest in fleet.haproxy("show table solver_keys"), "the next process knows the key"
    again, document, named = post(fleet, key)
    assert (again, document["id"], named) == (200, accepted, owner)
    for path, expected in ((f"/v1/tasks/{accepted}", 200), ("/healthz", 200), ("/v1/tasks/nobody-1", 404)):
        status, told, _answer = across_a_reload(fleet, f"GET {path} HTTP/1.1")
        assert status == expected, (path, told)


def test_known_keys_stay_with_their_workers_through_reloads(fleet: HostFleet) -> None:
    """A new process serves before it has the keys, and one that has just started hands none over for some seconds."""
    fleet.on_router("systemctl restart solver-router")
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all behind the router")
    keys = [f"kept-{number}" for number in range(30)]
    with ThreadPoolExecutor(4) as pool:
        taken = dict(zip(keys, pool.map(lambda key: post(fleet, key), keys), strict=True))
        assert {status for status, _document, _owner in taken.values()} == {202}, taken
        reloads = pool.submit(fleet.on_router, "for n in 1 2 3; do systemctl reload solver-router || exit 1; done")
        rounds = 0
        while not reloads.done():
            for key, (status, document, owner) in zip(keys, pool.map(lambda key: post(fleet, key), keys), strict=True):
                told = (status, document.get("id"), owner)
                assert told == (200, taken[key][1]["id"], taken[key][2]), (key, document)
            rounds += 1
        reloads.result()
    assert rounds > 3, rounds


def tables(fleet: HostFleet) -> dict[str, int]:
    """How many entries HAProxy has in each of its tables."""
    lines = [line.split(", ") for line in fleet.haproxy("show table").splitlines() if line.startswith("# table: ")]
    return {words[0].removeprefix("# table: "): int(words[-1].removeprefix("used:")) for words in lines}


def strangers(fleet: HostFleet, requests: int) -> set[int]:
    """Send as many requests without a token, each with a key of its own; what they were answered."""
    assert fleet.router is not None
    address = fleet.router.address

    def some(number: int) -> set[int]:
        line = http.client.HTTPConnection(address, 8090, timeout=60)
        told = set()
        for each in range(requests // 8):
            line.request("POST", "/v1/tasks", b"{}", {"Idempotency-Key": f"stranger-{number}-{each}"})
            answer = line.getresponse()
            answer.read()
            told.add(answer.status)
        line.close()
        return told

    with ThreadPoolExecutor(8) as pool:
        return set().union(*pool.map(some, range(8)))


def test_strangers_push_no_key_of_a_client_out_of_the_router_s_memory(fleet: HostFleet) -> None:
    """A client is known by the first answer that its token was good for; who is not has a table of his own."""
    done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0", solver_router_keys=1000)
    assert done.returncode == 0, done.stdout
    fleet.on_router("systemctl restart solver-router")
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all behind the router")
    assert tables(fleet) == {"solver_keys": 0, "solver_new_keys": 0, "solver_clients": 0}
    taken = {key: post(fleet, key) for key in (f"known-{number}" for number in range(9))}
    assert {status for status, _document, _owner in taken.values()} == {202}, taken
    assert {name: tables(fleet)[name] for name in ("solver_keys", "solver_clients")} == {
        "solver_keys": 9, "solver_clients": 1}, "also the key of the very first request"
    assert strangers(fleet, 1504) == {401}
    counted = tables(fleet)
    assert (counted["solver_keys"], counted["solver_clients"]) == (9, 1), counted
    # Through a reload too: the next process is told who is known.
    for when in ("now", "after a reload"):
        for key, (_status, document, owner) in taken.items():
            status, again, named = post(fleet, key)
            assert (status, again["id"], named) == (200, document["id"], owner), (when, key)
        fleet.on_router("systemctl reload solver-router")
    done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_a_configuration_that_cannot_be_loaded_is_said_and_undone(fleet: HostFleet) -> None:
    """HAProxy calls it valid; only when it listens does it find that this host has no such address."""
    assert fleet.router is not None
    before, text = started(fleet), fleet.on_router("cat /etc/solver-router/router.cfg")
    for _again in range(2):
        done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0",
                              solver_router_bind=[f"{fleet.router.address}:8090", "192.0.2.1:8090"])
        told = " ".join(done.stdout.split())
        assert (done.returncode, "192.0.2.1:8090" in told) == (2, True), done.stdout
        assert "runs the one before, which is in its place again" in told, done.stdout
        assert fleet.on_router("cat /etc/solver-router/router.cfg") == text
        assert post(fleet, "still-served")[0] in (200, 202)
    # A run that ended before its reload leaves this behind.
    fleet.on_router("echo '# older' >> /run/solver-router/loaded.cfg")
    for changed in (1, 0):
        done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0")
        assert (done.returncode, recap(done.stdout)["changed"]) == (0, changed), done.stdout
    # Nor does the reload depend on the socket that the operator chooses.
    own = "/run/solver-router/other.sock"
    done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0", solver_router_stats_socket=own)
    assert done.returncode == 0, done.stdout
    assert fleet.module("r1", "solver.fleet.router_info", stats_socket=own)["serving"] == ["w1", "w2", "w3"]
    done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    assert set(view(fleet).values()) == {"UP"}
    assert started(fleet) == before


@pytest.mark.long
def test_a_worker_with_another_address_is_asked_there(fleet: HostFleet) -> None:
    """HAProxy keeps over a reload what it knew of a server, its port too."""
    before, address = started(fleet), f"{fleet.workers['w3'][0].address}:{{}}"
    fleet.write({"w3": {"solver_data_port": 9999}})
    for refused in (fleet.playbook("provision", solver_version="1.2.0"), fleet.roll("1.2.0", solver_drain_grace=2)):
        told = " ".join(refused.stdout.split())
        assert (refused.returncode, "9999" in told, "solver_router_hosts=none" in told) == (2, True, True), told
    assert rows(fleet)["w3"]["addr"] == address.format(fleet.workers["w3"][1])
    # The router alone cannot know whether the worker serves.
    for port in (9999, fleet.workers["w3"][1]):
        fleet.write({"w3": {"solver_data_port": port}})
        done = fleet.playbook("provision", "--limit", "r1", solver_version="1.2.0")
        assert done.returncode == 0, done.stdout
        assert rows(fleet)["w3"]["addr"] == address.format(port)
        wait_for(lambda port=port: (view(fleet)["w3"] == "UP") == (port != 9999), "the router to ask there")
    assert started(fleet) == before


def test_what_a_worker_has_when_a_reload_comes_is_answered(fleet: HostFleet) -> None:
    """The process that ends still brings the answer; the next one has heard only that the key is with somebody."""
    pids = [fleet.pid(name) for name in fleet.workers]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        try:
            answer = pool.submit(post, fleet, "in-hand")
            wait_for(lambda: rows(fleet)["BACKEND"]["scur"] == "1", "a worker to have the request")
            fleet.on_router("systemctl reload solver-router")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    status, document, _owner = answer.result()
    assert status == 202, document
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all behind the router", 60)
    status, document, _owner = post(fleet, "in-hand")
    assert (status, document["code"]) == (502, "outcome_unknown"), "nobody else is asked"


def test_an_unknown_outcome_is_never_sent_to_another_worker(fleet: HostFleet) -> None:
    """The worker dies with the request in its hands: the router says that it does not know, nobody is billed twice."""
    pids = [fleet.pid(name) for name in fleet.workers]
    before = {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.workers}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(OSError, match="timed out"):
            post(fleet, "doubt", timeout=1)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: new_processes(fleet, before), "new processes", 60)
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all behind the router", 60)
    status, document, _named = post(fleet, "doubt")
    assert (status, document["code"]) == (502, "outcome_unknown")
    assert post(fleet, "no-doubt")[0] == 202


def drop_in(name: str) -> str:
    return f"/run/systemd/system/solver-worker@{name}.service.d"


def kill_for_good(fleet: HostFleet, workers: list[str]) -> None:
    """Their connections are refused from now on, and systemd does not start them again."""
    for name in workers:
        fleet.workers[name][0].ssh(f"mkdir -p {drop_in(name)} && "
                                   f"printf '[Service]\\nRestart=no\\n' > {drop_in(name)}/no.conf "
                                   "&& systemctl daemon-reload")
    for pid in [fleet.pid(name) for name in workers]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(refuses(*fleet.workers[name]) for name in workers), "the ports to refuse connections")


def refuses(host: Host, port: int) -> bool:
    """A process that is just ending may still take a connection, and then nobody knows."""
    try:
        socket.create_connection((host.address, port), 5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def start_again(fleet: HostFleet, workers: list[str]) -> None:
    for name in workers:
        unit = f"solver-worker@{name}"
        fleet.workers[name][0].ssh(f"rm -r {drop_in(name)}; systemctl daemon-reload; systemctl reset-failed {unit}; "
                                   f"systemctl start {unit}")
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all behind the router", 60)


@pytest.mark.long
def test_a_known_key_is_never_refused_as_if_nobody_had_its_task(fleet: HostFleet) -> None:
    """503 means: certainly not accepted, send it anew. Of a key that the dead worker has taken that is not true."""
    status, document, owner = post(fleet, "taken")
    assert status == 202, document
    kill_for_good(fleet, [owner])
    try:
        status, doubt, _named = post(fleet, "taken", timeout=60)
        assert (status, doubt["status"], doubt["code"]) == (502, 502, "outcome_unknown")
    finally:
        start_again(fleet, [owner])
    status, again, named = post(fleet, "taken")
    assert (status, again["id"], named) == (200, document["id"], owner)


@pytest.mark.long
def test_a_refused_connection_is_a_refusal_though_the_router_thought_that_all_were_up(fleet: HostFleet) -> None:
    kill_for_good(fleet, list(fleet.workers))
    try:
        request = urllib.request.Request(f"{fleet.router_url()}/v1/tasks", data=b"{}", method="POST",
                                         headers={"Idempotency-Key": "refused"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 503
    finally:
        start_again(fleet, list(fleet.workers))
    version = [int(part) for part in fleet.on_router("haproxy -v").split()[2].split(".")[:2]]
    # Where HAProxy can take its mark off the key, the same key is good again; a new one always is.
    assert post(fleet, "refused")[0] == (202 if version >= [3, 0] else 502)
    assert post(fleet, "refused, so anew")[0] == 202


def started(fleet: HostFleet) -> str:
    return fleet.on_router("systemctl show -p ExecMainStartTimestampMonotonic -p NRestarts solver-router")


@pytest.mark.long
def test_a_limit_and_a_changed_setting_leave_the_router_whole_and_running(fleet: HostFleet) -> None:
    before = started(fleet)
    # As the version before this one wrote it: the unit must be installed anew, and nothing restarted.
    fleet.on_router("echo '# older' >> /etc/systemd/system/solver-router.service; systemctl daemon-reload")
    done = fleet.playbook("provision", "--limit", "w1,r1", solver_version="1.2.0", solver_router_max_connections=4000)
    assert done.returncode == 0, done.stdout
    assert "it counts from the next start" in " ".join(done.stdout.split()), done.stdout
    assert view(fleet) == {"w1": "UP", "w2": "UP", "w3": "UP"}
    assert "Maxconn: 4000" in fleet.haproxy("show info")
    assert started(fleet) == before
    done = fleet.playbook("provision", "--limit", "w1,r1", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    assert "it counts from the next start" not in " ".join(done.stdout.split()), done.stdout
    assert started(fleet) == before
    asked = {"control_socket": "/run/solver/w1/control.sock", "worker_dir": "/opt/solver/workers/w1"}
    assert sorted(fleet.module("w1", "solver.fleet.worker_info", **asked)["rollout"]["roster"]) == ["w1", "w2", "w3"]


@pytest.mark.long
def test_a_cancelled_run_strands_no_worker(fleet: HostFleet) -> None:
    fleet.start_clients(8)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_drain_grace=2,
                                       solver_progress_deadline=160, **LEASES)
        until(seen, "the drain of w1", lambda: seen.last("w1").get("drain"), running, 200)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    wait_for(lambda: set(view(fleet).values()) == {"UP"}, "all workers to get tasks again", 120)
    audit = fleet.end_traffic()
    assert audit["answered"] == audit["accepted"] > 20, audit
    assert fleet.report()["client"]["declined"] == 0, fleet.refusals()
    done = fleet.roll("1.3.0", solver_drain_grace=2)
    assert done.returncode == 0, done.stdout


def test_too_short_a_grace_is_refused(fleet: HostFleet) -> None:
    done = fleet.roll("1.2.0", solver_drain_grace=1)
    assert done.returncode != 0
    assert "make the grace at least 2 s" in " ".join(done.stdout.split()), done.stdout


def test_a_removed_worker_leaves_the_router(fleet: HostFleet) -> None:
    keys = [f"leaves-{number}" for number in range(12)]
    gone = [key for key in keys if post(fleet, key)[2] == "w3"]
    assert gone, "w3 has none of 12 tasks"
    # The tests before left tasks behind that nobody fetches.
    done = fleet.playbook("remove", solver_only=["w3"], solver_drain_timeout=20)
    assert done.returncode == 0, done.stdout
    del fleet.workers["w3"]
    fleet.write()
    assert view(fleet) == {"w1": "UP", "w2": "UP"}
    assert "w3" not in fleet.haproxy("show stat")
    for key in gone:
        status, document, _owner = post(fleet, key)
        assert (status, document["code"]) == (502, "outcome_unknown"), "nobody else is asked"
