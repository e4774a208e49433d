# SPDX-License-Identifier: GPL-3.0-or-later
"""Traps of Ansible that no other scenario walks into; docs/ansible-traps.md lists all of them with their tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from faultlib import watched
from fleetlib import Fleet, wait_for

pytestmark = pytest.mark.trap


def test_failures_of_several_waves_add_up_and_what_follows_an_abort_still_runs(make_fleet):
    """With ``serial: 1`` no percentage bears one failure; a rescued one never counts; an abort ends all later plays."""
    fleet: Fleet = make_fleet(5)
    taken = {"solver_data_port": fleet.hosts()["w1"]["solver_data_port"]}
    inventory = fleet.write_inventory("taken.yml", w2=taken, w4=taken)
    with watched(fleet):
        done = fleet.roll("1.3.0", inventory=inventory)
    assert done.returncode != 0, done.stdout
    # One of five is borne, and the healthy neighbours are left alone; the second, two waves later, is too much.
    assert fleet.outcomes() == {"w1": "rolled_back", "w2": "reverted", "w3": "rolled_back", "w4": "reverted",
                                "w5": "not_attempted"}, done.stdout
    verdict = fleet.verdict()
    assert (verdict["verdict"], verdict["budget_percent"]) == ("rolled_back", 25)
    assert set(fleet.versions().values()) == {"1.2.0"}
    fleet.assert_all_serve()


def test_two_slices_at_once_are_both_refused(make_fleet):
    """A sliced job runs the same playbook on several parts of the inventory at once; each would take a window."""
    fleet: Fleet = make_fleet(4)
    text = fleet.inventory.read_text(encoding="utf-8").splitlines(keepends=True)
    running = []
    for gone in (("w3", "w4"), ("w1", "w2")):
        path = fleet.dir / f"without-{gone[0]}.yml"
        path.write_text("".join(line for line in text if line.strip().partition(":")[0] not in gone))
        running.append(fleet.start_playbook("rolling_update", inventory=path, solver_version="1.3.0"))
    for process, missing in zip(running, ("w3, w4", "w1, w2"), strict=True):
        out, _none = process.communicate(timeout=200)
        assert process.returncode != 0, out
        assert f"lacks {missing}" in " ".join(out.split()), out
    assert set(fleet.versions().values()) == {"1.2.0"}
    assert all(fleet.status(name)["instance"]["pid"] and fleet.status(name)["drain"] is None for name in fleet.hosts())


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
