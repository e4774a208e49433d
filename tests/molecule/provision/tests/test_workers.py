# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker on its host, right after provisioning."""

from __future__ import annotations

import re


def test_its_service_runs_and_starts_with_the_machine(host, name, status):
    service = host.service(f"solver-worker@{name}")
    assert service.is_running
    assert service.is_enabled
    assert (status["state"], status["accepting"], status["instance"]["version"]) == ("running", True, "1.2.0")


def test_what_lies_on_the_host_is_tight(host, name):
    expected = {
        "/etc/solver": "root 700", f"/etc/solver/{name}.key": "root 400", f"/etc/solver/{name}.token": "root 400",
        "/opt/solver": "root 750", f"/opt/solver/workers/{name}": "root 750",
        f"/run/solver/{name}/control.sock": "solver 660", f"/var/lib/solver/{name}": "solver 700",
        f"/var/lib/solver/{name}/journal.sqlite3": "solver 600",
    }
    # One look for all of them: each takes a connection of its own.
    with host.sudo():
        done = host.run("stat --format '%n %U %a' " + " ".join(expected))
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == expected


def test_it_listens_where_it_was_told_to(host):
    own = host.ansible.get_variables()
    listening = host.run("ss --no-header --listening --tcp --numeric").stdout.split()
    port = own["solver_data_port"]
    assert [word for word in listening if word.endswith(f":{port}")] == [f"{own['ansible_host']}:{port}"]


def test_its_exposure_is_low(host, name):
    done = host.run("systemd-analyze security --no-pager %s", f"solver-worker@{name}")
    exposure = re.findall(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert exposure, done
    assert float(exposure[0]) < 2.0


def test_no_secret_can_be_seen(host, name):
    with host.sudo():
        key, token = (host.file(f"/etc/solver/{name}.{kind}").content_string.strip() for kind in ("key", "token"))
        looks = [host.run(command).stdout for command in (
            f"systemctl show solver-worker@{name}", "ps axeww", f"journalctl --no-pager -u solver-worker@{name}")]
    assert len(key) == len(token) == 32
    assert all(looks)
    assert not [look for look in looks if key in look or token in look]
