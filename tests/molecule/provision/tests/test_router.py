# SPDX-License-Identifier: GPL-3.0-or-later
"""The router in front of the workers, right after provisioning."""

from __future__ import annotations

import os

import pytest
import testinfra

INVENTORY = f"{os.environ.get('MOLECULE_PROJECT_DIRECTORY', '.')}/.cache/molecule-hosts/fleet/inventory.yml"


@pytest.fixture(scope="module")
def router():
    return testinfra.get_host("ansible://r1", ansible_inventory=INVENTORY)


def test_its_service_runs_and_starts_with_the_machine(router):
    service = router.service("solver-router")
    assert service.is_running
    assert service.is_enabled
    assert not router.service("haproxy").is_running, "the distribution's own is left alone"


def test_what_lies_on_its_host_is_tight(router):
    expected = {
        "/etc/solver-router/router.cfg": "root haproxy 640", "/run/solver-router": "haproxy haproxy 750",
        "/run/solver-router/stats.sock": "haproxy haproxy 660", "/var/lib/solver-router": "haproxy haproxy 700",
        "/etc/systemd/system/solver-router.service": "root root 644",
    }
    with router.sudo():
        done = router.run("stat --format '%n %U %G %a' " + " ".join(expected))
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == expected


def test_it_listens_where_it_was_told_to(router):
    own = router.ansible.get_variables()
    listening = router.run("ss --no-header --listening --tcp --numeric").stdout.split()
    ports = [word for word in listening if ":" in word and not word.endswith((":22", ":*"))]
    assert ports == own["solver_router_bind"]


def test_it_knows_no_secret(router):
    """It passes the clients' token on and needs none."""
    own = testinfra.get_host("ansible://w1", ansible_inventory=INVENTORY).ansible.get_variables()
    with router.sudo():
        looks = [router.file("/etc/solver-router/router.cfg").content_string,
                 router.run("ps axeww").stdout, router.run("journalctl --no-pager -u solver-router").stdout]
    assert all(looks)
    assert not [look for look in looks if own["solver_api_key"] in look or own["solver_data_token"] in look]
