# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drains resume.yml ends, and what it says of the others."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._resume import (
    at_work,
    decisions,
    left_to_removal,
    outcomes,
    removals,
    resume,
)

SETTINGS: dict[str, Any] = {"solver_only": [], "solver_resume_foreign": False}
REMOVAL = "remove-0123456789abcdef"


def census(owner: str = "", state: str = "drained", version: str = "1.2.0", drained: str = "1.2.0",
           rollout: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    drain = {"owner": owner, "reason": "new disk", "version": drained, "expired": False,
             "lease_expires_at": "2026-11-29T05:00:00Z"} if owner else None
    worker = {"state": state, "drain": drain, "instance": {"version": version, "release": f"{version}-a"}}
    return {"finding": "answering", "worker": worker, "lock_state": "free", "rollout": {"rollout": rollout or {}},
            **more}


def held(**lock: Any) -> dict[str, Any]:
    own = census("r1", rollout={"id": "r1"}, lock_state="held")
    own["rollout"]["lock"] = {"rollout_id": "r1", "run_id": "run1", "user": "ada", **lock}
    return own


def test_one_that_takes_no_tasks_does_not_serve():
    full = census(state="running")
    assert resume(full, SETTINGS, ()).action == "serves"
    full["worker"]["accepting"] = False
    assert resume(full, SETTINGS, ()) == (
        "refused", "it is running and takes no tasks, and no drain keeps it so; look into its log", "")


def test_the_drain_of_a_dead_rollout_and_that_of_a_removal_end():
    assert resume(census("r1", rollout={"id": "r1"}), SETTINGS, ()).action == "resume"
    assert resume(census(REMOVAL), SETTINGS, ()) == ("resume", f"drained by '{REMOVAL}'", REMOVAL)
    assert resume(held(), SETTINGS, {"run1"}).action == "resume"


@pytest.mark.parametrize("owner", ["alice", "remove-me", REMOVAL + "0", f"x{REMOVAL}"])
def test_somebody_elses_drain_ends_only_when_it_is_meant(owner):
    said = resume(census(owner), SETTINGS, ())
    assert said.action == "refused"
    assert f"drained by '{owner}' (new disk) until 2026-11-29T05:00:00Z" in said.reason
    assert "solver_resume_foreign: true with a solver_reason" in said.reason
    assert resume(census(owner), {**SETTINGS, "solver_resume_foreign": True}, ()).owner == owner


def test_what_a_running_rollout_holds_stays():
    said = resume(held(), {**SETTINGS, "solver_resume_foreign": True}, ())
    assert said.action == "refused"
    assert "ada" in said.reason
    assert "pause.yml" in said.reason


@pytest.mark.parametrize("own", [
    census("r1", version="1.3.0", rollout={"id": "r1"}),
    census("alice", version="1.3.0"),
    census("r1", rollout={"id": "r1", "from": {"release": "1.2.0-b"}, "to": {"release": "1.2.0-a"}}),
])
def test_what_nobody_has_verified_does_not_serve_by_this(own):
    said = resume(own, {**SETTINGS, "solver_resume_foreign": True}, ())
    assert said.action == "refused"
    assert "recover.yml verifies it" in said.reason


def test_a_release_that_served_before_it_was_drained_again_is_verified():
    rollout = {"id": "r1", "from": {"release": "1.2.0-b"}, "to": {"release": "1.2.0-a"}, "outcome": "updated"}
    assert resume(census("r1", rollout=rollout), SETTINGS, ()).action == "resume"


@pytest.mark.parametrize(("own", "part"), [
    ({"unreachable": True, "msg": "no answer within 80 s"}, "it cannot be asked: no answer within 80 s"),
    ({}, "no process answers"),
    ({"finding": "dead", "worker": None, "message": "gone"}, "no process answers: gone; recover.yml"),
    ({"failed": True, "msg": "answers wrongly: drain.owner is missing"}, "answers wrongly: drain.owner"),
    ({**census(), "worker": {"state": "failed", "failure": {"message": "the port is taken"}}}, "has failed: the port"),
    (census("", state="stopping"), "it is stopping, and no drain keeps it so"),
])
def test_who_cannot_serve_says_why(own, part):
    said = resume(own, SETTINGS, ())
    assert said.action == "refused"
    assert part in said.reason


def test_only_those_that_are_named_and_each_has_a_line():
    fleet = {"w1": census(REMOVAL), "w2": census(state="running"), "w3": census("alice"), "w10": census(REMOVAL)}
    decided = decisions(fleet, {**SETTINGS, "solver_only": ["w1", "w2", "w10"]}, ())
    assert {name: own.action for name, own in decided.items()} == {
        "w1": "resume", "w2": "serves", "w3": "left", "w10": "resume"}
    found = outcomes(decided, {"w1": {"done": True}, "w10": {"failed": True, "msg": "it is\ndrained by 'bob'"}})
    assert {name: serves for name, (serves, _line) in found.items()} == {"w1": True, "w2": True, "w10": False}
    assert found["w1"][1] == f"w1: serves again, it was drained by '{REMOVAL}'"
    assert "\n" not in found["w10"][1]
    assert found["w10"][1].endswith("run the same command again")


def renewed(own: dict[str, Any], until: str = "2026-11-29T05:00:05Z") -> dict[str, Any]:
    worker = own["worker"]
    return {**own, "worker": {**worker, "drain": {**worker["drain"], "lease_expires_at": until}}}


@pytest.mark.parametrize(("after", "goes_on"), [
    (census(REMOVAL), False),
    (renewed(census(REMOVAL)), True),
    (census("remove-ffffffffffffffff"), True),
    (census(REMOVAL, state="stopping"), True),
    (census(), True),
    ({"finding": "stopped", "worker": None}, True),
    ({"unreachable": True, "msg": "no route"}, False),
    (renewed(census(REMOVAL), "2026-11-29T05:00:00.002Z"), False),
])
def test_a_removal_that_goes_on_is_told_from_one_that_died(after, goes_on):
    assert at_work(census(REMOVAL), after) is goes_on


def test_what_a_removal_is_taking_away_stays_drained():
    decided = decisions({"w1": census(REMOVAL), "w2": census("r1", rollout={"id": "r1"}), "w3": census(REMOVAL)},
                        SETTINGS, ())
    assert removals(decided) == ["w1", "w3"]
    found = left_to_removal(decided, ["w3"])
    assert {name: own.action for name, own in found.items()} == {"w1": "resume", "w2": "resume", "w3": "refused"}
    assert outcomes(found, {})["w3"] == (False, f"w3: remove.yml is taking it away now, as '{REMOVAL}'; wait for it, "
                                                "or end it and run this command again")
