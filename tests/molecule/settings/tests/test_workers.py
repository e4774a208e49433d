# SPDX-License-Identifier: GPL-3.0-or-later
"""Each worker after its unit was changed."""

from __future__ import annotations


def test_it_runs_under_the_changed_unit(host, name, status):
    done = host.run("systemctl show --property MemoryMax --value %s", f"solver-worker@{name}")
    assert done.stdout.strip() == str(512 * 1024 * 1024)
    assert (status["state"], status["instance"]["version"]) == ("running", "1.3.0")
