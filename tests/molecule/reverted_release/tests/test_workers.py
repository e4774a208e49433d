# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker after the broken release, seen from its host."""

from __future__ import annotations


def test_it_serves_what_it_served_before(status):
    assert (status["state"], status["accepting"], status["drain"]) == ("running", True, None)
    assert status["instance"]["version"] == "1.2.0"


def test_its_service_runs_the_release_of_before(host, name, status):
    assert host.service(f"solver-worker@{name}").is_running
    with host.sudo():
        assert host.file(f"/opt/solver/workers/{name}/current").linked_to.endswith(status["instance"]["release"])
