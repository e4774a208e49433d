# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with one worker, whatever an earlier run left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import census, fleet, plan, record, staged, updated

NEW = {"version": "1.3.0", "release": "1.3.0-new"}


def drain(owner="r0", version="1.2.0", **more):
    return {"owner": owner, "reason": "update to 1.3.0", "version": version, "lease_expires_at": "soon",
            "expired": False, **more}


def decide(seen, at_target=False, kind="update", **settings):
    return plan({"w1": {"census": seen, "staged": staged(at_target=at_target)}}, kind=kind, **settings)["workers"]["w1"]


def test_new_version_but_still_held_is_taken_over_and_verified():
    made = decide(census(state="drained", drain=drain(version="1.3.0"), record=record(), **NEW), at_target=True)
    assert (made["action"], made["steal"]) == ("update", True)
    assert made["reason"] == "left in the drain of r0, goes first"


def test_drained_by_a_dead_rollout_of_another_target_is_taken_over():
    made = decide(census(state="drained", drain=drain(), record=record(target="1.2.5")))
    assert (made["action"], made["steal"]) == ("update", True)


def test_link_moved_but_not_restarted_is_updated():
    seen = census()
    seen["releases"]["current"] = {"id": "1.3.0-new", "version": "1.3.0"}
    assert decide(seen, at_target=True)["action"] == "update"


def test_half_staged_is_staged_again_and_updated():
    assert decide(census(record=record()))["action"] == "update"


def test_reverted_by_the_release_is_not_tried_again_without_force():
    old = record(outcome="reverted", cause="release", outcome_reason="verify: probe failed", verdict="aborted")
    made = decide(census(record=old))
    assert made["action"] == "failed"
    assert "solver_force: true" in made["reason"]
    assert decide(census(record=old), solver_force=True)["action"] == "update"


@pytest.mark.parametrize("change", [{"cause": "drain"}, {"cause": "host"}, {"outcome": "updated"},
                                    {"to": {"version": "1.2.9", "release": "1.2.9-new"}}])
def test_any_other_failure_is_tried_again(change):
    old = record(**{"outcome": "reverted", "cause": "release", **change})
    assert decide(census(record=old))["action"] == "update"


def test_unreachable_last_time_is_tried_again():
    assert decide(census(record=record(outcome="unreachable", cause="host")))["action"] == "update"


def test_a_foreign_drain_is_refused_or_left_out():
    seen = census(state="drained", drain=drain(owner="somebody"))
    assert decide(seen)["action"] == "refuse"
    assert "solver_foreign_drain: exclude" in decide(seen)["reason"]
    assert decide(seen, solver_foreign_drain="exclude")["action"] == "excluded"
    assert decide(census(state="drained", drain=drain(owner="somebody", expired=True)))["action"] == "update"


def test_recover_resumes_what_was_not_switched_without_a_solve():
    made = decide(census(state="drained", drain=drain(), record=record()), kind="recover")
    assert (made["action"], made["release"], made["probe"], made["steal"]) == ("update", "1.2.0-old", False, True)


def test_recover_verifies_what_was_switched_and_knows_the_way_back():
    made = decide(census(state="drained", drain=drain(version="1.2.0"), record=record(), **NEW), kind="recover")
    assert (made["action"], made["release"], made["probe"]) == ("update", "1.3.0-new", True)
    assert made["back_to"] == "1.2.0-old"


def test_recover_goes_on_in_the_name_of_the_rollout_that_it_ends():
    """Its drain then still knows the version that it is of, and the record whose drain it is, if this dies as well."""
    held = census(state="drained", drain=drain(version="1.2.0"), record=record(), **NEW)
    made = decide(held, kind="recover")
    assert (made["owner"], made["on_expire"]) == ("r0", "hold")
    held["worker"]["api"]["features"].append("verify")
    assert decide(held, kind="recover")["on_expire"] == "verify"
    assert decide(census(state="failed", record=record()), kind="recover")["owner"] == "r1"
    before = decide(census(state="drained", drain=drain(), record=record()), kind="recover")
    assert (before["owner"], before["on_expire"]) == ("r0", None)


def test_a_worker_at_the_target_keeps_its_own_way_back():
    seen = census(record=record(verdict="completed"), **NEW)
    made = decide(seen, at_target=True)
    assert (made["action"], made["begins"]) == ("already", True), "the same rollout goes on"
    later = record("r5", kind="rollback", target="previous", started_at="2026-11-25T01:00:00Z")
    both = plan({"w1": {"census": seen, "staged": staged(at_target=True)},
                 "w2": {"census": census(record=later), "staged": staged()}})
    assert (both["workers"]["w1"]["action"], both["workers"]["w1"]["begins"]) == ("already", False)


def test_recover_brings_a_dead_process_back_to_where_it_came_from():
    seen = {"finding": "dead", "worker": None, "rollout": record(), "releases": {"current": {"id": "1.3.0-new"}}}
    made = decide(seen, kind="recover")
    assert (made["action"], made["release"]) == ("update", "1.2.0-old")


@pytest.mark.parametrize(("seen", "action"), [
    (census(record=record()), "already"),
    (census(), "already"),
    (census(state="drained", drain=drain(owner="somebody"), record=record()), "excluded"),
    ({"finding": "stopped", "worker": None, "rollout": None, "releases": {}}, "excluded"),
    ({"finding": "stopped", "worker": None, "rollout": record(ended_at="then"), "releases": {}}, "excluded"),
])
def test_recover_touches_nothing_that_no_rollout_left(seen, action):
    assert decide(seen, kind="recover")["action"] == action


RECORDS = st.sampled_from([None, record(), record(verdict="paused"), record(target="1.4.0"),
                           record(outcome="reverted", cause="release")])
DRAINS = st.sampled_from([None, drain(), drain(owner="r1"), drain(owner="somebody"), drain(expired=True)])
VERSIONS = st.sampled_from([{}, NEW])


@given(RECORDS, DRAINS, VERSIONS, st.sampled_from(["running", "draining", "drained", "failed", "recovering"]),
       st.sampled_from(["1.2.0-old", "1.3.0-new"]))
def test_nothing_is_skipped_that_does_not_serve_the_target(old, held, version, state, link):
    seen = census(state=state, drain=held, record=old, **version)
    seen["releases"]["current"] = {"id": link}
    made = decide(seen, at_target=link == "1.3.0-new")
    at_target = bool(version) and link == "1.3.0-new" and state == "running" and not held
    assert (made["action"] == "already") == at_target
    ours = {"r1", *(["r0"] if old else [])}  # what the record knows, and what this rollout is called
    if old and old["rollout"]["target"] == "1.3.0":
        ours.remove("r1")  # it continues r0
    foreign = bool(held) and not held["expired"] and held["owner"] not in ours
    assert (made["action"] == "refuse") == foreign


@given(st.integers(1, 8), st.data())
def test_a_rerun_after_any_interruption_ends_with_all_at_the_target(size, data):
    """Whatever each worker was left in, playing the plan through brings all there, and again changes nothing."""
    states = {f"w{n}": {"census": census(
        state=data.draw(st.sampled_from(["running", "draining", "drained"])),
        record=data.draw(st.sampled_from([None, record()])),
        drain=data.draw(st.sampled_from([None, drain(expired=True)])), **data.draw(VERSIONS)), "staged": staged()}
        for n in range(1, size + 1)}
    for own in states.values():
        own["staged"]["at_target"] = own["census"]["worker"]["instance"]["release"] == "1.3.0-new"
    made = plan(states)
    done = {name: updated() if made["workers"][name]["action"] == "update" else states[name] for name in states}
    again = plan(done)
    assert again["order"] == []
    assert {own["action"] for own in again["workers"].values()} == {"already"}
    assert plan(fleet(size))["fleet"] == size


@pytest.mark.parametrize("seen", [
    {"finding": "hung", "worker": None},
    {"worker": {**census()["worker"], "state": "starting"}}, {"worker": {**census()["worker"], "state": "stopping"}}])
def test_what_takes_no_drain_is_ended_by_force_where_a_rollback_names_it(seen):
    hung = {**census(record=record(outcome="quarantined", cause="release")), **seen}
    named = decide(hung, kind="rollback", solver_version="", solver_only=["w1"])
    assert (named["action"], named["forced"], named["release"]) == ("update", True, "1.2.0-old")
    assert "its process is ended by force" in named["reason"]
    assert "may be billed" in named["reason"]
    for kind, only in (("rollback", []), ("update", ["w1"]), ("recover", ["w1"])):
        assert decide(hung, kind=kind, solver_only=only)["forced"] is False, kind


@pytest.mark.parametrize(("own", "kind", "action"), [
    ({}, "update", "update"), ({}, "recover", "excluded"),
    (record(outcome="quarantined", cause="release"), "update", "failed"),
    (record(outcome="quarantined", outcome_reason="it hangs", ended_at="2026-11-24T02:00:00Z"), "recover", "excluded")])
def test_of_what_takes_no_drain_each_run_names_the_way_out(own, kind, action):
    made = decide({**census(record=own or None), "finding": "hung", "worker": None}, kind=kind)
    assert made["action"] == action
    assert "rollback.yml with solver_only" in made["reason"], made["reason"]
    assert "by force" in made["reason"], made["reason"]


@pytest.mark.parametrize("finding", ["stopped", "dead", "denied", "foreign"])
def test_only_what_hangs_is_ended_by_force(finding):
    gone = {**census(record=record()), "finding": finding, "worker": None}
    assert decide(gone, kind="rollback", solver_version="", solver_only=["w1"])["forced"] is False


def test_what_its_host_could_not_start_again_is_refused_and_the_host_is_blamed():
    gone = {**census(), "service_problem": "systemd says of 'solver-worker@w1.service': not-found; run provision.yml"}
    made = decide(gone)
    assert made["action"] == "refuse"
    assert made["reason"].startswith("its host could not start it again once it is stopped, whatever the release: sys")
    assert decide(gone, kind="rollback", solver_version="")["action"] == "refuse"
    # Who is not stopped needs no start, and who hangs in a drain still comes back to service.
    assert decide({**gone, **census("1.3.0", release="1.3.0-new")}, at_target=True)["action"] == "already"
    held = {**gone, **census(state="drained", drain=drain(), record=record())}
    assert decide(held, kind="recover")["action"] == "update"
    assert decide(gone, solver_exclude=["w1"])["action"] == "excluded"


def test_a_release_that_cannot_be_started_again_is_no_reason_to_keep_it():
    assert decide({**census(), "release_problem": "its interpreter is gone"})["action"] == "update"
