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


def test_a_worker_whose_disk_is_full_says_so():
    census = {"worker": {"state": "running", "instance": {"release": "one"}, "accepting": False, "failure": None,
                         "refusal": {"code": "disk_full", "message": "less than 4 MiB are free"}}, "releases": {}}
    line = next(line for line in fleet_lines({"w1": census}) if line.startswith("w1"))
    assert line.endswith("less than 4 MiB are free")
