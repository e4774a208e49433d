# SPDX-License-Identifier: GPL-3.0-or-later
"""What several records prove together: no worker decides alone for the others."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _locks
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _process
from entry_kit import NOW, THEN
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import census, plan, record, staged

OWN = {"host": "deck", "machine_id": "m", "boot_id": "b", "pid": 10, "pid_started": 100, "pid_ns": 4}
LIVES, DIED = {**OWN, "pid": 7, "pid_started": 70}, {**OWN, "pid": 8, "pid_started": 80}


def alive(pid, _began):
    return pid == 7


def held(controller, run="run0"):
    return {"run_id": run, "controller": controller}


def dead(**holders):
    return _locks.proven_dead(holders, OWN, lambda controller, own: _process.provably_dead(controller, own, alive))


def test_a_run_whose_workers_agree_that_it_died_is_dead():
    assert dead(w1=held(DIED), w2=held(DIED), w3=held(DIED)) == ["run0"]
    assert dead(w1=held(DIED)) == ["run0"]  # it died while it took its first lock
    assert dead(w1=held(LIVES), w2=held(LIVES)) == []


def test_one_worker_does_not_prove_the_run_dead_that_lives_on_the_others():
    forged = {"w2": held(DIED)}
    assert dead(w1=held(LIVES), **forged, w3=held(LIVES), w4=held(LIVES)) == []
    assert dead(w1=held(LIVES), **forged) == []


def test_where_one_names_another_controller_the_run_may_live():
    assert dead(w1=held(DIED), w2=held(DIED), w3=held(LIVES)) == []
    assert dead(w1=held(DIED), w2=held(DIED), w3=held({})) == []
    assert dead(w1=held(DIED), w2=held({**DIED, "pid": 9})) == []


def test_each_run_is_judged_by_its_own_workers():
    assert dead(w1=held(DIED), w2=held(LIVES, "run1"), w3=held(DIED)) == ["run0"]


def test_a_controller_that_is_not_there_proves_nothing():
    assert dead(w1={"run_id": "run0", "controller": None}) == []
    assert dead() == []


def test_only_what_a_worker_said_itself_is_taken_over_there():
    holders = {"w2": held(DIED), "w3": held(LIVES, "run1")}
    assert _locks.dead_on("w2", holders, ["run0"]) == ["run0"]
    assert _locks.dead_on("w1", holders, ["run0"]) == []  # out of reach: the run may live there
    assert _locks.dead_on("w3", holders, ["run0"]) == []


@given(st.lists(st.sampled_from([LIVES, DIED, {}, None]), min_size=1, max_size=6))
def test_no_run_that_somebody_knows_to_live_is_dead(controllers):
    found = dead(**{f"w{place}": held(controller) for place, controller in enumerate(controllers)})
    assert found == (["run0"] if all(controller == DIED for controller in controllers) else [])


@pytest.mark.parametrize(("rollout", "expected"), [
    ({"id": "rollout-20261124T010000Z-a1b2c3", "started_at": THEN}, True),
    ({"id": "r0"}, True),
    ({"id": "r0", "started_at": "2026-11-24T02:04:59Z"}, True),  # the clock of that controller is ahead
    ({"id": "r0", "started_at": "2026-11-24T02:06:00Z"}, False),
    ({"id": "r0", "started_at": "9999-12-31T23:59:59Z"}, False),
    ({"id": "r0", "started_at": "soon"}, False),
    ({"id": "r" * 250, "started_at": THEN}, False),
    ({"id": "two words", "started_at": THEN}, False),
    ({"id": "r\x1b[2J", "started_at": THEN}, False),
    ({"id": 5, "started_at": THEN}, False),
    ({}, False),
])
def test_only_a_sane_rollout_goes_on_elsewhere(rollout, expected):
    assert _locks.continuable(rollout, NOW) is expected


FLEET = ["w1", "w2", "w3"]


@pytest.mark.parametrize(("rosters", "expected"), [
    ({}, []),
    ({"w1": FLEET}, FLEET),  # an inventory with one of three
    ({"w1": FLEET, "w2": []}, FLEET),  # it lost its record
    ({"w1": FLEET, "w2": FLEET}, FLEET),
    ({"w1": FLEET, "w2": [*FLEET, "ghost"]}, FLEET),
    ({"w1": FLEET, "w2": ["ghost"], "w3": FLEET}, FLEET),
    ({"w1": FLEET, "w2": [], "w3": FLEET}, FLEET),
    ({"w1": [*FLEET, "w4"], "w2": FLEET, "w3": [*FLEET, "w4"]}, [*FLEET, "w4"]),  # w2 was away when w4 came
    ({"w1": [*FLEET, "w4"], "w2": FLEET, "w3": FLEET}, FLEET),  # w1 was away when w4 left
    ({"w1": [], "w2": ["ghost"], "w3": []}, []),  # a new fleet, and one that lies
    ({"w1": FLEET, "w2": ["ghost"] * 9, "w3": FLEET}, FLEET),
])
def test_members(rosters, expected):
    assert _locks.members(rosters) == expected


@given(st.integers(3, 9), st.lists(st.sampled_from(["w1", "w2", "ghost", "g2"])))
def test_from_three_on_one_liar_neither_adds_nor_takes_away(size, lie):
    fleet = [f"w{number}" for number in range(1, size + 1)]
    rosters = {**dict.fromkeys(fleet, fleet), "w2": lie}
    assert _locks.members(rosters) == fleet


def test_the_plan_is_not_stopped_by_a_ghost_in_one_roster():
    rosters = {"w1": FLEET, "w2": ["ghost"], "w3": FLEET}
    made = plan({name: {"census": census(record={**record(target="1.2.0"), "roster": roster}), "staged": staged()}
                 for name, roster in rosters.items()})
    assert made["refused"] == []
    assert made["lock"]["roster"] == FLEET
