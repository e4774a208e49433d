# SPDX-License-Identifier: GPL-3.0-or-later
"""Traps of Ansible that no other scenario walks into; docs/ansible-traps.md lists all of them with their tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from faultlib import watched
from fleetlib import Fleet, wait_for

pytestmark = pytest.mark.trap


def test_a_release_that_was_linked_but_never_started_is_started(make_fleet):
    """A handler is skipped when its host fails, and the next run sees nothing to do: the old process runs for ever."""
    fleet: Fleet = make_fleet(2)
    assert fleet.roll("1.3.0").returncode == 0
    assert fleet.playbook("rollback").returncode == 0
    own = Path(fleet.hosts()["w1"]["solver_base_dir"], "workers/w1")
    assert (own / "current").resolve().name.startswith("1.2.0-")
    newer = (own / "previous").resolve()
    assert newer.name.startswith("1.3.0-")
    (own / "next").symlink_to(newer)
    (own / "next").replace(own / "current")
    assert fleet.status("w1")["instance"]["version"] == "1.2.0"
    with watched(fleet):
        done = fleet.roll("1.3.0")
    assert done.returncode == 0, done.stdout
    assert fleet.outcomes() == {"w1": "updated", "w2": "updated"}
    wait_for(lambda: set(fleet.versions().values()) == {"1.3.0"}, "the new release on both")
    fleet.assert_all_serve()
