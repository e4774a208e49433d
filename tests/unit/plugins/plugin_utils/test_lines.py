# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read of a fleet."""

from __future__ import annotations

from ansible_collections.solver.fleet.plugins.filter.rollout import last_of_machines
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


def test_a_machine_is_cleared_once_and_only_after_its_last_worker():
    own = {"w1": {"machine": "a", "base_dir": "/opt"}, "w2": {"machine": "a", "base_dir": "/opt"},
           "w3": {"machine": "b", "base_dir": "/opt"}, "w10": {"machine": "b", "base_dir": "/srv"}}
    assert last_of_machines(["w1"], own) == []
    assert last_of_machines(["w2", "w1"], own) == ["w1"]
    assert last_of_machines(["w3"], own) == [], "its other worker may need what is there"
    assert last_of_machines(["w10", "w3", "w9"], own) == ["w3", "w10"]
