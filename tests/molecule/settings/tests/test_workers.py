# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker after its unit, its configuration and its key were changed."""

from __future__ import annotations


def test_it_runs_under_the_changed_unit(host, name, status):
    done = host.run("systemctl show --property MemoryMax --value %s", f"solver-worker@{name}")
    assert done.stdout.strip() == str(640 * 1024 * 1024)
    assert (status["state"], status["instance"]["version"]) == ("running", "1.3.0")


def test_it_runs_with_the_changed_configuration(host, name, status):
    with host.sudo():
        release = host.file(f"/opt/solver/workers/{name}/current").linked_to
        text = host.file(f"{release}/config.toml").content_string
    assert "time_limit_s = 299.0" in text
    assert release.endswith(status["instance"]["release"]), "the process runs what was changed"


def test_it_has_the_changed_key(host, name):
    with host.sudo():
        assert host.file(f"/opt/solver/workers/{name}/current/credentials/api_key").content_string.strip() == "f" * 32
