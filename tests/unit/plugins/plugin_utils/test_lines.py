# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read of a fleet."""

from __future__ import annotations

import entry_kit as kit
import pytest
from ansible_collections.solver.fleet.plugins.filter import rollout
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


@pytest.mark.parametrize(("way", "value", "field"), [
    (("history",), [{}], None), (("worker", "instance", "version"), "1\n\x1b[2Jw2 1.3.0 running", None),
    (("worker", "journal"), "x", "journal"), (("worker", "tasks"), {"open": "many"}, "tasks.open"),
    (("rollout", "lock"), "x", "rollout.lock"), (("releases", "current"), 5, "releases.current")])
def test_the_playbooks_that_show_and_provision_let_answers_in_as_all_others_do(way, value, field):
    answer = kit.changed(kit.census(kit.LOCK), way, value)
    lines = rollout.fleet_lines({"w1": answer, "w2": kit.census()})
    assert [line for line in lines if not line.isprintable()] == []
    assert next(line for line in lines if line.startswith("w2")).split()[:3] == ["w2", "1.2.0", "running"]
    own = next(line for line in lines if line.startswith("w1"))
    assert (f"answers wrongly: {field} " in own) is bool(field)
    assert rollout.lock_free(answer) is False, "a lock that cannot be read is not free"


def test_a_record_that_cannot_be_read_is_not_free():
    assert rollout.lock_free(kit.census()) is True
    assert rollout.lock_free({**kit.census(), "record_problem": "it is no JSON"}) is False


def test_what_is_too_deep_to_read_is_wrong():
    answer = value = {}
    for _level in range(5000):
        value["worker"] = value = {}
    assert "answers wrongly: the answer is text" in rollout.fleet_lines({"w1": answer})[1]
    assert rollout.lock_free(answer) is True


def test_a_worker_whose_disk_is_full_says_so():
    census = {"worker": {"state": "running", "instance": {"release": "one"}, "accepting": False, "failure": None,
                         "refusal": {"code": "disk_full", "message": "less than 4 MiB are free"}}, "releases": {}}
    line = next(line for line in fleet_lines({"w1": census}) if line.startswith("w1"))
    assert line.endswith("less than 4 MiB are free")


def test_status_says_which_workers_would_not_survive_a_restart():
    serving = {"worker": {"state": "running", "instance": {"version": "1.2.0", "release": "one"}}}
    held = {"worker": {"state": "drained", "instance": {"release": "one"}, "drain": {"owner": "r1"}}}
    fleet = {"w1": {**serving, "service_problem": "its unit is masked"},
             "w2": {**held, "release_problem": "its interpreter is 3.13 now"}, "w3": serving}
    lines = fleet_lines(fleet)
    assert lines[1].endswith("would not survive a restart: its unit is masked")
    assert lines[2].endswith("drained by r1: no reason given; would not survive a restart: its interpreter is 3.13 now")
    assert "survive" not in lines[3]


def test_a_machine_is_cleared_once_and_only_after_its_last_worker():
    own = {"w1": {"machine": "a", "base_dir": "/opt"}, "w2": {"machine": "a", "base_dir": "/opt"},
           "w3": {"machine": "b", "base_dir": "/opt"}, "w10": {"machine": "b", "base_dir": "/srv"}}
    assert last_of_machines(["w1"], own) == []
    assert last_of_machines(["w2", "w1"], own) == ["w1"]
    assert last_of_machines(["w3"], own) == [], "its other worker may need what is there"
    assert last_of_machines(["w10", "w3", "w9"], own) == ["w3", "w10"]
