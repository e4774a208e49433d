# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans in which standbys take over: who gets one, who cannot, how many at once, and what blue-green adds."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _plan, _plan_lines
from rollout_kit import census, fleet, plan, record, staged

STANDBY = {"solver_switch": "standby"}


def able(size: int = 4, problem: str | None = None, **more: Any) -> dict[str, Any]:
    """Workers that can have a standby."""
    made = fleet(size)
    for own in made.values():
        own["census"] = {**census(**more), "standby_problem": problem}
        own["census"]["worker"]["api"]["features"].append("standby")
    return made


def stands(release: str) -> dict[str, Any]:
    return {"finding": "answering", "worker": {"state": "standby", "instance": {"release": release}}}


def switches(made: dict[str, Any]) -> set[str]:
    return {own["switch"] for own in made["workers"].values()}


def test_by_default_a_worker_is_restarted_in_place():
    made = plan(able())
    assert (switches(made), made["surge"]) == ({"in_place"}, 1)
    assert not any("standby" in line for line in _plan_lines.plan_lines(made))


def test_with_standbys_it_is_taken_over_from():
    made = plan(able(), surge=2, **STANDBY)
    assert (switches(made), made["refused"], made["surge"]) == ({"standby"}, [], 2)
    assert "up to 2 at once" in " ".join(_plan_lines.plan_lines(made))
    assert made["estimate_s"] < plan(able())["estimate_s"]


def test_one_that_does_not_serve_is_restarted_in_place():
    workers = able()
    workers["w2"]["census"]["worker"]["state"] = "failed"
    made = plan(workers, **STANDBY)
    assert (made["workers"]["w2"]["switch"], made["refused"]) == ("in_place", [])
    assert made["order"][0] == "w2"


@pytest.mark.parametrize(("change", "reason"), [
    (lambda own: own["worker"]["api"]["features"].remove("standby"), "the worker lacks standby, which this update"),
    (lambda own: own.pop("standby_problem"), "it has no slot for a standby; set solver_standby: true"),
    (lambda own: own.update(standby_problem="it has no slot (gone)"), "it has no slot (gone)"),
])
def test_who_cannot_have_one_is_named(change, reason):
    workers = able()
    change(workers["w3"]["census"])
    (refused,) = plan(workers, **STANDBY)["refused"]
    assert refused.startswith(f"w3: {reason}")
    assert "solver_switch: in_place" in refused
    assert plan(workers)["refused"] == []


@pytest.mark.parametrize(("spare", "more", "words"), [
    (600, {}, ""),
    (599, {}, "400 MB and some room; set solver_surge: 3, or set solver_switch: in_place"),
    (149, {}, "400 MB and some room; set solver_switch: in_place"),
    (149, {"surge": 1}, "standbys for 1 at once need 100 MB"),
    (150, {"surge": 1}, ""),
    (599, {"solver_strategy": "blue_green"}, "400 MB and some room; set solver_strategy: rolling"),
])
def test_a_machine_has_memory_for_all_standbys_that_it_may_have_at_once(spare, more, words):
    workers = able(5)
    for own in workers.values():
        own["census"]["standby_memory"] = {"needs": 100 << 20, "spare": spare << 20}
    # One stands by already.
    workers["w5"]["census"]["standby_memory"] = None
    said = plan(workers, **{**STANDBY, "surge": 4, "flip": 5, **more})["refused"]
    assert words in "; ".join(said)
    assert bool(said) == bool(words)


def test_one_that_is_there_already_needs_no_standby():
    workers = able()
    workers["w3"] = {"census": census("1.3.0", release="1.3.0-new"), "staged": staged(at_target=True)}
    workers["w3"]["census"]["worker"]["api"]["features"].append("standby")
    assert plan(workers, **STANDBY)["refused"] == []


def test_only_an_update_raises_standbys():
    assert _plan.switch_of("rolling", STANDBY, "recover") == "in_place"
    assert _plan.switch_of("recreate", STANDBY, "update") == "in_place"
    assert _plan.switch_of("rolling", STANDBY, "rollback") == "in_place", "it may lead to what knows no standby"


@pytest.mark.parametrize(("more", "ended", "action", "switch"), [
    ({}, None, "already", "in_place"),
    ({"in_slot": True}, "2026-11-24T02:00:00Z", "update", "tidy"),
    ({"standby": stands("1.3.0-new")}, None, "update", "tidy"),
    ({"standby": stands("1.3.0-new")}, "2026-11-24T02:00:00Z", "already", "in_place"),  # it is kept
])
def test_a_recovery_takes_away_what_a_dead_run_left_beside_a_worker(more, ended, action, switch):
    workers = able(record=record(ended_at=ended))
    for own in workers.values():
        own["census"].update(more)
    made = plan(workers, kind="recover", solver_version="")
    assert {own["action"] for own in made["workers"].values()} == {action}
    assert switches(made) == {switch}


BLUE_GREEN = {"solver_strategy": "blue_green", "flip": 4}


def test_blue_green_has_a_standby_beside_all_before_anybody_switches():
    made = plan(able(), **BLUE_GREEN)
    (stage,) = made["stages"]
    assert (stage["workers"], stage["window"], stage["barrier"]) == (["w1", "w2", "w3", "w4"], 4, True)
    # Who goes back goes by the operator's window.
    assert (made["window"], made["floor"], made["surge"], made["blue_keep"]) == (1, 3, 4, 1800.0)
    assert switches(made) == {"standby"}
    assert ("when all standbys are verified, 4 at a time take over (solver_flip); the old release then stands by for "
            "30 min (solver_blue_keep)") in _plan_lines.plan_lines(made)
    flips = plan(able(), **{**BLUE_GREEN, "flip": 1})
    assert (flips["stages"][0]["window"], flips["surge"]) == (1, 4)
    manual = " ".join(_plan_lines.plan_lines(plan(able(), solver_promote="manual", **BLUE_GREEN)))
    assert "the rollout ends as awaiting_promotion (solver_promote: manual)" in manual


def test_blue_green_needs_a_fork_for_each():
    assert plan(able(), forks=3, **BLUE_GREEN)["refused"] == [
        "forks is 3, but with solver_strategy: blue_green the turns of 4 workers wait for each other; use --forks 4"]


def test_a_rollback_takes_over_where_what_was_stands_by():
    def back(standby: dict[str, Any] | None, **settings: Any) -> dict[str, Any]:
        workers = able(version="1.3.0", release="1.3.0-new", record=record(verdict="completed", outcome="updated"))
        for own in workers.values():
            own["census"]["standby"] = standby
        return plan(workers, kind="rollback", solver_version="", **settings)

    made = back(stands("1.2.0-old"))
    assert (switches(made), made["surge"], made["refused"]) == ({"standby"}, 4, [])
    together = {"solver_strategy": "recreate", "solver_accept_downtime": True}
    assert switches(back(stands("1.2.0-old"), **together)) == {"in_place"}
    for other in (None, stands("1.1.0-older"), {"finding": "stopped", "worker": None}):
        assert (switches(back(other)), back(other)["surge"]) == ({"in_place"}, 1)
