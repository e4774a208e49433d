# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole fleet put on real hosts over SSH, by a user who is not root."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cores
import pytest
from faultlib import LEASES, until, watched
from fleetlib import assert_nothing_lost, wait_for
from hostlib import PACE, HostFleet, recap
from lab import LabError


def said(out: str) -> str:
    """The output without the breaks that fit it to a terminal."""
    return " ".join(out.split())


def test_each_host_has_its_own_processes_and_control_groups(fleet: HostFleet) -> None:
    """Two of them in one group would remove each other's services from it."""
    groups = [Path(f"/proc/{host.init()}/cgroup").read_text() for host in fleet.lab.hosts.values()]
    assert len(set(groups)) == len(groups) > 1, groups


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
    well = fleet.playbook("doctor")
    assert well.returncode == 0, well.stdout
    assert "3 workers: 3 without a finding" in well.stdout, well.stdout


@pytest.mark.long
def test_the_doctor_names_what_is_wrong_on_a_host(fleet: HostFleet) -> None:
    shown(fleet, "w1", "chmod 0644 /etc/solver/w1.key && systemctl mask --runtime solver-worker@w1")
    try:
        ill = fleet.playbook("doctor", solver_become=False)
        text = said(fleet.playbook("doctor").stdout)
    finally:
        shown(fleet, "w1", "chmod 0600 /etc/solver/w1.key && systemctl unmask --runtime solver-worker@w1")
    assert ill.returncode == 2, ill.stdout
    assert "and units of systemd need root; set solver_become: true" in said(ill.stdout), ill.stdout
    assert "somebody listens" not in said(ill.stdout), "it may not ask the worker, which is well"
    assert "BAD w1: /etc/solver/w1.key may be read by everybody (mode 0644)" in text, text
    assert text.count("BAD w1: ") >= 2, "and its unit is masked"
    assert "w2: " not in text, text
    assert fleet.playbook("doctor").returncode == 0


@pytest.mark.long
def test_provisioning_again_changes_nothing(fleet: HostFleet) -> None:
    """In `make hosts-test` that is molecule's scenario provision."""
    again = fleet.playbook("provision", solver_version="1.2.0")
    assert again.returncode == 0, again.stdout
    assert recap(again.stdout)["changed"] == 0, again.stdout


@pytest.mark.long
def test_the_oldest_core_provisions_and_plans_the_same_hosts(
    fleet: HostFleet, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one core renders as a number is text to another."""
    # On this very Python: the wheels that the controller gathered are its.
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    core = next(core for core, pythons in cores.CORES.items() if version in pythons)
    monkeypatch.setenv("SOLVER_ANSIBLE_BIN", str(cores.install(core, sys.executable, f"{core}-python{version}")))
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    assert recap(done.stdout)["changed"] == 0, done.stdout
    plan = fleet.playbook("rolling_update", "--check", solver_version="1.3.0")
    assert plan.returncode == 0, plan.stdout


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


def test_changed_settings_wait_for_the_next_release_and_go_back_with_it(fleet: HostFleet) -> None:
    """Configuration, key and unit. That they roll without a release too: molecule's scenario settings."""
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
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}
    assert not set(boots(fleet).values()) & set(before.values())
    assert shown(fleet, "w1", "systemctl show -p MemoryMax --value solver-worker@w1") == str(300 * 1024 * 1024)
    assert "299" in shown(fleet, "w1", "grep time_limit /opt/solver/workers/w1/current/config.toml")
    assert shown(fleet, "w1", "cat /opt/solver/workers/w1/current/credentials/api_key") == "f" * 32
    assert "waits for" not in said(fleet.playbook("status").stdout)
    with watched(fleet):
        done = fleet.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert_nothing_lost(fleet.end_traffic())
    assert set(fleet.versions().values()) == {"1.2.0"}
    assert shown(fleet, "w1", "systemctl show -p MemoryMax --value solver-worker@w1") == str(512 * 1024 * 1024)
    assert shown(fleet, "w1", "cat /opt/solver/workers/w1/current/credentials/api_key") != "f" * 32


UNIT = "/usr/local/lib/systemd/system/solver-worker@w2.service"


def pinged(fleet: HostFleet) -> int:
    """When systemd last took a ping of w2."""
    return int(shown(fleet, "w2", "systemctl show -p WatchdogTimestampMonotonic --value solver-worker@w2"))


def test_a_worker_whose_service_is_disabled_serves_on_and_is_rolled(fleet: HostFleet) -> None:
    """And what `enable` makes of it still follows the release."""
    before = boots(fleet)
    shown(fleet, "w2", "systemctl disable solver-worker@w2")
    last = pinged(fleet)
    wait_for(lambda: pinged(fleet) > last, "systemd to take a ping of w2", 60)
    for version, state in (("1.3.0", "disabled"), ("1.2.0", "enabled")):
        done = fleet.roll(version)
        assert done.returncode == 0, done.stdout
        assert "survive" not in fleet.playbook("status").stdout
        release = fleet.status("w2")["instance"]["release"]
        told = shown(fleet, "w2", "readlink -f $(systemctl show -p DropInPaths --value solver-worker@w2); "
                                  "systemctl show -p NeedDaemonReload,UnitFileState --value solver-worker@w2")
        assert told.split() == [f"/opt/solver/releases/{release}/solver-worker@w2.service", state, "no"], told
        shown(fleet, "w2", "systemctl enable solver-worker@w2")
    assert not set(boots(fleet).values()) & set(before.values())


def test_a_masked_worker_refuses_the_rollout(fleet: HostFleet) -> None:
    before, version = boots(fleet), fleet.versions()["w2"]
    shown(fleet, "w2", "systemctl mask solver-worker@w2")
    refused = fleet.roll("1.3.0" if version == "1.2.0" else "1.2.0")
    shown(fleet, "w2", "systemctl is-active solver-worker@w2")
    assert refused.returncode == 2, refused.stdout
    assert "w2: its host could not start it again once it is stopped" in said(refused.stdout), refused.stdout
    assert "would not survive a restart" in said(fleet.playbook("status").stdout)
    shown(fleet, "w2", "systemctl unmask solver-worker@w2")
    assert "survive" not in fleet.playbook("status").stdout
    assert boots(fleet) == before


def test_the_unit_of_an_older_version_gives_way_to_this_one_s(fleet: HostFleet) -> None:
    """It was a link, which `disable` removes."""
    before, older = boots(fleet), "/etc/systemd/system/solver-worker@w2.service"
    shown(fleet, "w2", f"rm -r {UNIT} {UNIT}.d; ln -s /opt/solver/workers/w2/current/solver-worker@w2.service {older}; "
                       f"ln -sf {older} /etc/systemd/system/multi-user.target.wants/; systemctl daemon-reload")
    done = fleet.playbook("provision", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    assert shown(fleet, "w2", "systemctl show -p FragmentPath,LoadState,UnitFileState solver-worker@w2").split() == [
        "LoadState=loaded", f"FragmentPath={UNIT}", "UnitFileState=enabled"]
    assert boots(fleet) == before, "what serves is never restarted"
    fleet.assert_all_serve()


def test_an_account_of_somebody_else_is_not_made_over(fleet: HostFleet) -> None:
    before = shown(fleet, "w1", "getent passwd deploy; stat -c '%U %G' /opt/solver /opt/solver/workers/*")
    refused = fleet.playbook("provision", solver_version="1.2.0", solver_user="deploy")
    assert refused.returncode != 0
    assert "the user deploy exists on this host and was not made by provisioning" in said(refused.stdout)
    taken = fleet.playbook("provision", solver_version="1.2.0", solver_user="deploy", solver_user_exists=True)
    assert taken.returncode != 0
    assert "its files belong to solver, not to deploy (solver_user)" in said(taken.stdout)
    assert shown(fleet, "w1", "getent passwd deploy; stat -c '%U %G' /opt/solver /opt/solver/workers/*") == before


@pytest.mark.long  # What molecule's reverted_release does not have is the traffic.
def test_a_bad_release_is_reverted_under_traffic(fleet: HostFleet) -> None:
    fleet.start_traffic(rate=8)
    with watched(fleet):
        bad = fleet.roll("1.4.0", solver_max_fail_percentage=0, solver_probe_retries=1)
    assert bad.returncode != 0
    assert_nothing_lost(fleet.end_traffic())
    # Whose drain takes longest goes first.
    assert sorted(fleet.outcomes().values()) == ["not_attempted", "not_attempted", "reverted"], bad.stdout
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()
    log = next(own["log"] for own in fleet.verdict()["workers"] if own["outcome"] == "reverted")
    assert any("status=3" in line for line in log), log
    # It dies without a word, so each line of a worker, which begins with a date, is the one's before.
    assert not [line for line in log if re.match(r"\d{4}-\d\d-\d\dT", line)], log


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


@pytest.mark.long
def test_a_host_cut_off_in_its_wave_comes_back_by_its_lease(fleet: HostFleet) -> None:
    host = fleet.workers["w2"][0]
    with watched(fleet, window=2) as seen:
        running = fleet.start_playbook("rolling_update", solver_version="1.3.0", solver_progress_deadline=160, **LEASES)
        until(seen, "the drain of w2", lambda: seen.last("w2").get("drain"), running, 200)
        host.cut()
        since = time.monotonic()
        out, _none = running.communicate(timeout=400)
        print(f"the run ended {time.monotonic() - since:.0f} s after the line was cut")
    assert running.returncode != 0
    assert fleet.outcomes()["w2"] == "unreachable", out
    wait_for(lambda: fleet.status("w2")["state"] == "running", "w2 in service by its lease", 100)
    host.mend()
    done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert set(fleet.versions().values()) == {"1.3.0"}


@pytest.mark.long
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


# A worker beside those of the first fleet; its key lies where the collection owns nothing but the file.
OWN: dict[str, dict[str, Any]] = {"w4": {"solver_api_key_file": "/etc/captcha.key"}}


def roster(fleet: HostFleet, worker: str) -> list[str]:
    asked = {"control_socket": f"/run/solver/{worker}/control.sock", "worker_dir": f"/opt/solver/workers/{worker}"}
    return sorted(fleet.module(worker, "solver.fleet.worker_info", **asked)["rollout"]["roster"])


@pytest.mark.long
def test_one_new_worker_whose_port_was_taken_is_mended_by_provisioning(fleet: HostFleet) -> None:
    before, modes = boots(fleet), "stat -c '%a %U' /etc /etc/solver"
    tight = shown(fleet, "w2", modes)
    fleet.place(w1="h1", w2="h2", w3="h1", w4="h2")
    fleet.write({"w4": {**OWN["w4"], "solver_data_port": 8081}})
    done = fleet.playbook("provision", "--limit", "w4", solver_version="1.2.0")
    assert done.returncode != 0
    assert fleet.status("w4")["state"] == "failed", done.stdout
    fleet.write(OWN)
    done = fleet.playbook("provision", "--limit", "w4", solver_version="1.2.0")
    assert done.returncode == 0, done.stdout
    fleet.assert_all_serve()
    assert roster(fleet, "w4") == ["w1", "w2", "w3", "w4"]
    assert shown(fleet, "w2", modes) == tight == "755 root\n700 root"
    assert {name: boot for name, boot in boots(fleet).items() if name != "w4"} == before


@pytest.mark.long
def test_a_removal_that_fails_half_way_is_told_as_far_as_it_came(fleet: HostFleet) -> None:
    """The third has nothing to do and goes; the fourth has too much, and stays."""
    fleet.only_traffic("w4", rate=10)
    done = fleet.playbook("remove", solver_only=["w3", "w4"], solver_drain_timeout=1, solver_drain_grace=0)
    audit = fleet.end_traffic()
    assert done.returncode != 0
    assert "w4 could not be removed" in said(done.stdout), done.stdout
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == 0, audit
    assert roster(fleet, "w1") == roster(fleet, "w4") == ["w1", "w2", "w4"]
    del fleet.workers["w3"]
    fleet.write(OWN)
    fleet.assert_all_serve()


def call(fleet: HostFleet, worker: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{fleet.urls()[worker]}{path}", data=json.dumps(body).encode() if body else None, method=method,
        headers={"Content-Type": "application/json", "Idempotency-Key": "late",
                 "Authorization": f"Bearer {fleet.token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as problem:
        return problem.code, json.loads(problem.read() or "null")


@pytest.mark.long
def test_a_worker_is_removed_after_its_last_task(fleet: HostFleet) -> None:
    """And after its last result was fetched, by a client that looks now and then."""
    task = {"method": "userrecaptcha", "googlekey": "late", "pageurl": "https://shop.test/"}
    status, accepted = call(fleet, "w4", "POST", "/v1/tasks", task)
    assert status == 202, accepted
    fleet.start_traffic(rate=8)
    running = fleet.start_playbook("remove", solver_only=["w4"])
    wait_for(lambda: fleet.status("w4")["state"] == "drained", "the drain of w4", 60)
    assert running.poll() is None
    time.sleep(5)  # the interval of a client; without a wait for it the worker would be gone
    status, result = call(fleet, "w4", "GET", f"/v1/tasks/{accepted['id']}")
    assert (status, result["state"]) == (200, "succeeded")
    assert call(fleet, "w4", "DELETE", f"/v1/tasks/{accepted['id']}")[0] == 204
    out, _none = running.communicate(timeout=200)
    audit = fleet.end_traffic()
    assert running.returncode == 0, out
    assert "were not fetched" not in said(out), out
    assert audit["lost"] == audit["wrong"] == audit["billed_twice"] == audit["uncertain"] == 0, audit
    left = shown(fleet, "w2", "find / -xdev -path '*w4*' -not -path '/proc/*' -not -path '/sys/*'").split()
    assert [path for path in left if not path.startswith("/var/lib/solver/w4")] == []
    assert shown(fleet, "w2", "stat -c %a /etc/captcha.key") == "400", "it may be others' too"
    assert fleet.journal("w4").exists(), "its results can still be read"
    again = fleet.playbook("remove", solver_only=["w4"])
    assert again.returncode == 0, again.stdout
    del fleet.workers["w4"]
    fleet.write()
    assert fleet.roll("1.2.0").returncode == 0


@pytest.mark.long
def test_removing_everything_leaves_nothing_of_ours(fleet: HostFleet) -> None:
    """And names what it leaves, and why."""
    for worker in ("w1", "w2"):
        shown(fleet, worker, "touch /etc/solver/theirs")
    kept = fleet.playbook("remove", solver_only=["w3"], solver_drain_timeout=20, solver_drain_grace=0)
    shown(fleet, "w3", "rm -r /var/lib/solver/w3")
    assert kept.returncode == 0, kept.stdout
    assert "left are /opt/solver (for other workers, now or later), the user solver" in said(kept.stdout), kept.stdout
    del fleet.workers["w3"]
    fleet.write()
    done = fleet.playbook("remove", solver_only=["w1", "w2"], solver_remove_everything=True, solver_drain_timeout=20,
                          solver_drain_grace=0)
    assert done.returncode == 0, done.stdout
    for worker in ("w1", "w2"):
        left = shown(fleet, worker, "find /etc /opt /run /srv /tmp /usr/local /var -path '*solver*' "
                                    "-not -path '/var/log/*'")
        assert left.split() == ["/etc/solver", "/etc/solver/theirs"], left + done.stdout
        assert "solver" not in shown(fleet, worker, "getent passwd; getent group; "
                                                    "systemctl list-units --all --plain --no-legend --type=service")
    assert said(done.stdout).count("/etc/solver: not empty, what is in there is not ours") == 2, done.stdout
