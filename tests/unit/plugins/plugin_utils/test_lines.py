# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read of a fleet."""

from __future__ import annotations

from ansible_collections.solver.fleet.plugins.plugin_utils._lines import fleet_lines


def test_a_failed_worker_says_why_also_while_something_waits_for_it():
    census = {
        "worker": {"state": "failed", "instance": {"version": "1.2.0", "release": "one"}, "tasks": {"open": 0},
                   "failure": {"message": "the port 8081 is taken"}},
        "releases": {"current": {"id": "one"}, "staged": {"id": "two"}}}
    line = next(line for line in fleet_lines({"w1": census}) if line.startswith("w1"))
    assert line.endswith("the port 8081 is taken; pending: two waits for rolling_update.yml")


def test_a_drained_worker_says_by_whom_whatever_waits():
    census = {"worker": {"state": "drained", "instance": {"release": "one"}, "drain": {"owner": "r1"}},
              "releases": {"staged": {"id": "two"}}}
    line = next(line for line in fleet_lines({"w1": census}) if line.startswith("w1"))
    assert line.endswith("drained by r1: no reason given")


def test_status_says_which_workers_would_not_survive_a_restart():
    serving = {"worker": {"state": "running", "instance": {"version": "1.2.0", "release": "one"}}}
    held = {"worker": {"state": "drained", "instance": {"release": "one"}, "drain": {"owner": "r1"}}}
    fleet = {"w1": {**serving, "service_problem": "its unit is masked"},
             "w2": {**held, "release_problem": "its interpreter is 3.13 now"}, "w3": serving}
    lines = fleet_lines(fleet)
    assert lines[1].endswith("would not survive a restart: its unit is masked")
    assert lines[2].endswith("drained by r1: no reason given; would not survive a restart: its interpreter is 3.13 now")
    assert "survive" not in lines[3]
