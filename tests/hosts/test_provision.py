# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole fleet put on real hosts over SSH, by a user who is not root."""

from __future__ import annotations

import re
import time

import pytest
from faultlib import LEASES, until, watched
from fleetlib import assert_nothing_lost, wait_for
from hostlib import PACE, HostFleet, recap
from lab import LabError


def said(out: str) -> str:
    """The output without the breaks that fit it to a terminal."""
    return " ".join(out.split())


def test_the_first_fleet(fleet: HostFleet) -> None:
    fleet.place(w1="h1", w2="h2", w3="h1")
    plan = fleet.playbook("provision", "--check", "--diff", solver_version="1.2.0")
    assert plan.returncode == 0, plan.stdout
    done = fleet.playbook("provision", "-vvv", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    for worker in fleet.workers:
        status = fleet.status(worker)
        assert (status["state"], status["instance"]["version"]) == ("running", "1.2.0")
    for secret in (fleet.key, fleet.token):
        assert secret not in done.stdout + plan.stdout
    again = fleet.playbook("provision", solver_version="1.2.0")
    assert again.returncode == 0, again.stdout
    assert recap(again.stdout)["changed"] == 0, again.stdout


def shown(fleet: HostFleet, worker: str, command: str) -> str:
    done = fleet.workers[worker][0].ssh(command)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


def test_what_lies_on_the_hosts_is_tight(fleet: HostFleet) -> None:
    owners = {
        "/etc/solver": "700 root root", "/etc/solver/w1.key": "400 root root", "/etc/solver/w1.token": "400 root root",
        "/opt/solver": "750 root solver", "/opt/solver/workers/w1": "750 root solver",
        "/opt/solver/workers/w1/rollout": "750 root root",
        "/opt/solver/workers/w1/current/": "755 root root",
        "/opt/solver/workers/w1/current/credentials": "700 root root",
        "/opt/solver/workers/w1/current/credentials/api_key": "400 root root",
        "/run/solver/w1": "750 solver solver", "/run/solver/w1/control.sock": "660 solver solver",
        "/var/lib/solver/w1": "700 solver solver", "/var/lib/solver/w1/journal.sqlite3": "600 solver solver",
    }
    found = {path: shown(fleet, "w1", f"stat -c '%a %U %G' {path}") for path in owners}
    assert found == owners


def test_the_service_is_hardened_and_listens_where_it_was_told_to(fleet: HostFleet) -> None:
    assert shown(fleet, "w1", "systemctl is-active solver-worker@w1 solver-worker@w3") == "active\nactive"
    assert shown(fleet, "w1", "systemctl is-enabled solver-worker@w1") in ("enabled", "linked")
    exposure = shown(fleet, "w1", "systemd-analyze security --no-pager solver-worker@w1 | tail -1")
    assert float(re.findall(r"solver-worker@w1\.service: ([\d.]+)", exposure)[0]) < 2.0, exposure
    listening = shown(fleet, "w1", "ss -Hltn | awk '{print $4}'").split()
    address = fleet.workers["w1"][0].address
    assert sorted(one for one in listening if not one.endswith(":22")) == [f"{address}:8081", f"{address}:8082"]


def test_no_secret_can_be_seen(fleet: HostFleet) -> None:
    looks = ("systemctl show 'solver-worker@*'", "ps axeww", "journalctl --no-pager",
             "cat /opt/solver/releases/*/*.toml",
             "cat /opt/solver/releases/*/release.json", "systemctl cat solver-worker@w1",
             "for p in $(pgrep -u solver); do cat /proc/$p/environ /proc/$p/cmdline | tr '\\0' ' '; done")
    for look in looks:
        found = shown(fleet, "w1", look)
        assert found, look
        assert fleet.key not in found, look
        assert fleet.token not in found, look


def boots(fleet: HostFleet) -> dict[str, str]:
    return {name: fleet.status(name)["instance"]["boot_id"] for name in fleet.workers}


def test_a_changed_configuration_key_and_unit_wait_and_are_rolled_and_rolled_back(fleet: HostFleet) -> None:
    before = boots(fleet)
    fleet.key = "f" * 32
    fleet.write(solver_worker_config={"provider": PACE, "tasks": {"time_limit_s": 299.0}},
                solver_unit={"Service": {"MemoryMax": "300M"}})
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    assert boots(fleet) == before, "provisioning restarts nothing that serves"
    assert said(fleet.playbook("status").stdout).count("waits for rolling_update.yml") == 3
    fleet.start_traffic(rate=8)
    with watched(fleet):
        done = fleet.roll("1.2.0")
    assert done.returncode == 0, done.stdout
    assert not set(boots(fleet).values()) & set(before.values())
    assert shown(fleet, "w1", "systemctl show -p MemoryMax --value solver-worker@w1") == str(300 * 1024 * 1024)
    assert "299" in shown(fleet, "w1", "grep time_limit /opt/solver/workers/w1/current/config.toml")
    assert shown(fleet, "w1", "cat /opt/solver/workers/w1/current/credentials/api_key") == "f" * 32
    assert "waits for" not in said(fleet.playbook("status").stdout)
    with watched(fleet):
        done = fleet.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert_nothing_lost(fleet.end_traffic())
    assert shown(fleet, "w1", "systemctl show -p MemoryMax --value solver-worker@w1") == str(512 * 1024 * 1024)
    assert shown(fleet, "w1", "cat /opt/solver/workers/w1/current/credentials/api_key") != "f" * 32


def test_a_good_release_rolls_and_a_bad_one_is_reverted_under_traffic(fleet: HostFleet) -> None:
    fleet.start_traffic(rate=8)
    with watched(fleet):
        done = fleet.roll("1.3.0")
        assert done.returncode == 0, done.stdout
        bad = fleet.roll("1.4.0", solver_max_fail_percentage=0, solver_probe_retries=1)
    assert bad.returncode != 0
    assert_nothing_lost(fleet.end_traffic())
    assert fleet.outcomes() == {"w1": "reverted", "w2": "not_attempted", "w3": "not_attempted"}, bad.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
    fleet.assert_all_serve()
    assert fleet.verdict()["workers"][0]["log"], "the end of the service's log is in the verdict"


@pytest.mark.parametrize("how", ["restart", "reboot", "poweroff"])
def test_whatever_stops_a_host_no_accepted_task_is_lost(fleet: HostFleet, how: str) -> None:
    host = fleet.workers["w2"][0]
    fleet.start_traffic(rate=8)
    before = boots(fleet)["w2"]
    if how == "restart":
        shown(fleet, "w2", "systemctl restart solver-worker@w2")
    elif how == "reboot":
        host.ssh("systemctl reboot")
    else:
        host.poweroff()
        host.start()

    def is_back() -> bool:
        try:
            status = fleet.status("w2")
        except (OSError, LabError, AssertionError):
            return False
        return bool(status["state"] == "running" and status["instance"]["boot_id"] != before)

    wait_for(is_back, f"w2 in service after a {how}", 90)
    fleet.wait_for_accepted(60)
    audit = fleet.end_traffic()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == audit["expired"] == 0, audit
    assert audit["accepted"] > 20
    if how != "poweroff":
        assert audit["uncertain"] == 0, audit
    fleet.assert_all_serve()


def test_a_host_cut_off_in_its_wave_comes_back_by_its_lease(fleet: HostFleet) -> None:
    host = fleet.workers["w2"][0]
    with watched(fleet, window=2) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.2.0", solver_progress_deadline=160, **LEASES)
        until(seen, "the drain of w2", lambda: seen.last("w2").get("drain"), running, 200)
        host.cut()
        since = time.monotonic()
        out, _none = running.communicate(timeout=400)
        print(f"the run ended {time.monotonic() - since:.0f} s after the line was cut")
    assert running.returncode != 0
    assert fleet.outcomes()["w2"] == "unreachable", out
    wait_for(lambda: fleet.status("w2")["state"] == "running", "w2 in service by its lease", 100)
    host.mend()
    done = fleet.roll("1.2.0")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}


@pytest.mark.parametrize(("moment", "versions"), [
    ("draining", {"w1": "1.3.0", "w2": "1.2.0", "w3": "1.2.0"}),
    ("switched", {"w1": "1.3.0", "w2": "1.3.0", "w3": "1.2.0"}),
])
def test_a_host_rebooted_in_its_wave_serves_by_its_lease_and_the_next_run_goes_on(
    fleet: HostFleet, moment: str, versions: dict[str, str],
) -> None:
    """Before the switch it serves as it was; after it, the new version verifies itself first."""
    assert fleet.roll("1.2.0").returncode == 0
    before = boots(fleet)["w2"]
    fleet.start_traffic(rate=8)
    with watched(fleet) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_progress_deadline=160,
                                       solver_min_healthy_time=20, **LEASES)
        until(seen, "the drain of w2", lambda: seen.last("w2").get("drain"), running, 200)
        if moment == "switched":
            until(seen, "the new process of w2", lambda: seen.last("w2").get("instance", {}).get("version") == "1.3.0",
                  running, 200)
        fleet.workers["w2"][0].ssh("systemctl reboot")
        out, _none = running.communicate(timeout=400)
        assert running.returncode != 0
        assert fleet.outcomes() == {"w1": "updated", "w2": "unreachable", "w3": "not_attempted"}, out
        wait_for(lambda: seen.last("w2").get("state") == "running", "w2 in service by its lease", 150)
        assert fleet.versions() == versions
        assert boots(fleet)["w2"] != before
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
    audit = fleet.end_traffic()
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == audit["expired"] == 0, audit
    assert audit["accepted"] > 20
    fleet.assert_all_serve()


def test_a_worker_is_removed_after_its_last_task(fleet: HostFleet) -> None:
    fleet.start_traffic(rate=8)
    done = fleet.playbook("remove", solver_only=["w3"])
    audit = fleet.end_traffic()
    assert done.returncode == 0, done.stdout
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == audit["uncertain"] == 0, audit
    left = shown(fleet, "w1", "find / -xdev -path '*w3*' -not -path '/proc/*' -not -path '/sys/*'").split()
    assert [path for path in left if not path.startswith("/var/lib/solver/w3")] == []
    assert fleet.journal("w3").exists(), "its results can still be read"
    again = fleet.playbook("remove", solver_only=["w3"])
    assert again.returncode == 0, again.stdout
    del fleet.workers["w3"]
    fleet.write()
    assert fleet.roll("1.2.0").returncode == 0
