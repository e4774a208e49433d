# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict: the words, the exit code behind them, and lines for people."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import (
    _gate,
    _lines,
    _settings,
    _settings_rules,
    _step,
    _verdict,
)
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import FAILED, GOOD, PLANNED, REVERTED, census, fleet, plan, record, staged, updated

AT_TARGET = census("1.3.0", release="1.3.0-new")


def judge(made, outcomes, final=None, **more):
    seen = dict.fromkeys(made["workers"], AT_TARGET) if final is None else final
    return _verdict.verdict(made, outcomes, seen, **more)


def test_excluded_workers_keep_the_verdict_from_completed():
    made = plan(solver_exclude=["w1"])
    outcomes = {name: {"outcome": "updated"} for name in ("w2", "w3", "w4")}
    assert made["order"] == ["w2", "w3", "w4"]
    assert judge(made, outcomes)["verdict"] == "incomplete"
    assert list(_verdict.not_done(judge(made, outcomes), made)) == ["w1"]


WORDS = st.sampled_from(sorted(_gate.SPENDS | {"updated", "returned"})).map(lambda word: {"outcome": word})


@given(st.dictionaries(st.sampled_from(["w1", "w2", "w3", "w4"]), WORDS))
def test_completed_only_when_every_worker_is_at_the_target(outcomes):
    made = plan()
    doc = judge(made, outcomes)
    all_good = len(outcomes) == 4 and all(own["outcome"] == "updated" for own in outcomes.values())
    assert (doc["verdict"] == "completed") == all_good
    assert (not _verdict.not_done(doc, made)) == all_good


def test_a_worker_that_went_bad_after_its_turn_is_not_completed():
    made = plan(fleet(4))
    outcomes = {name: {"outcome": "updated"} for name in made["workers"]}
    final = dict.fromkeys(made["workers"], AT_TARGET)
    assert judge(made, outcomes, final)["verdict"] == "completed"
    doc = judge(made, outcomes, {**final, "w1": {"finding": "dead", "worker": None}})
    assert doc["verdict"] == "incomplete"
    assert "after its update it is dead" in doc["workers"][0]["reason"]
    doc = judge(made, outcomes, {**final, "w1": {"unreachable": True, "msg": "no route"}})
    assert doc["workers"][0]["outcome"] == "unreachable"
    assert judge(made, outcomes, {**final, "w2": census()})["workers"][1]["outcome"] == "failed"
    full = {**AT_TARGET, "worker": {**AT_TARGET["worker"], "accepting": False}}
    assert "it is running and takes no tasks" in judge(made, outcomes, {**final, "w3": full})["workers"][2]["reason"]


def test_the_last_worker_is_judged_too():
    outcomes = {f"w{n}": {"outcome": "updated"} for n in (1, 2, 3)} | {"w4": {"outcome": "reverted"}}
    assert judge(plan(solver_max_fail_percentage=0.0), outcomes)["verdict"] == "aborted"
    assert judge(plan(), outcomes)["verdict"] == "incomplete"


def test_nothing_to_do_is_completed():
    made = plan({"w1": updated(), "w2": updated()})
    assert made["stages"] == []
    assert judge(made, {})["verdict"] == "completed"


def test_check_mode_is_planned_and_fails_nobody():
    made = plan()
    doc = judge(made, {}, check_mode=True)
    assert doc["verdict"] == "planned"
    assert _verdict.not_done(doc, made) == {}


@pytest.mark.parametrize(("cause", "word"), [
    ("paused", "paused"), ("inconclusive", "inconclusive"), ("operator", "aborted"), ("floor", "aborted"),
    ("progress", "aborted"), ("lock", "aborted"), ("budget", "aborted")])
def test_what_the_gate_closed_for_becomes_the_verdict(cause, word):
    made = plan()
    doc = judge(made, {"w1": {"outcome": "updated"}}, gate={"cause": cause, "reason": "because"})
    assert doc["verdict"] == word
    assert doc["reasons"] == ["because"]
    assert _verdict.not_done(doc, made)


def test_a_request_that_came_too_late_changes_nothing():
    made = plan()
    outcomes = {name: {"outcome": "updated"} for name in made["workers"]}
    assert judge(made, outcomes, gate={"cause": "paused", "reason": "x"})["verdict"] == "completed"


def test_rolled_back_only_when_all_are_back():
    made = plan(solver_max_fail_percentage=0.0)
    bad = {"outcome": "reverted", "cause": "release", "reason": "verify: no"}
    outcomes = {"w1": {"outcome": "updated"}, "w2": {"outcome": "updated"}, "w3": bad}
    good = {"outcome": "updated", "timings": {"drain": 1.0}}
    doc = judge(made, outcomes, backs={"w1": good, "w2": good})
    assert doc["verdict"] == "rolled_back"
    assert [own["outcome"] for own in doc["workers"]] == ["rolled_back", "rolled_back", "reverted", "not_attempted"]
    assert set(_verdict.not_done(doc, made)) == {"w1", "w2", "w3", "w4"}
    doc = judge(made, outcomes, backs={"w1": good, "w2": {"outcome": "quarantined", "cause": "release", "reason": "x"}})
    assert doc["verdict"] == "rollback_failed"
    assert doc["workers"][1]["outcome"] == "quarantined"
    lost = {"outcome": "unreachable", "cause": "host", "reason": "no route to host"}
    doc = judge(made, outcomes, backs={"w1": good, "w2": lost})
    assert (doc["verdict"], doc["workers"][1]["outcome"], doc["workers"][1]["cause"]) == (
        "rollback_failed", "unreachable", "host")


def test_who_was_left_drained_and_serves_again_was_not_attempted():
    made = plan(fleet(2, w1={"census": census("1.2.0", "drained", drain={"owner": "r0", "version": "1.2.0"},
                                              record=record("r0")), "staged": staged()}))
    gate = {"cause": "paused", "reason": "on the phone"}
    doc = judge(made, {}, gate=gate, backs={"w1": {"outcome": "updated"}}, undone=False)
    assert (doc["verdict"], doc["workers"][0]["outcome"]) == ("paused", "not_attempted")
    assert "serves 1.2.0 again" in doc["workers"][0]["reason"]
    switched = census("1.3.0", "drained", "1.3.0-new", {"owner": "r0", "version": "1.2.0"}, record("r0"))
    made = plan(fleet(2, w1={"census": switched, "staged": staged()}))
    doc = judge(made, {}, gate=gate, backs={"w1": {"outcome": "updated"}}, undone=False)
    assert doc["workers"][0]["outcome"] == "rolled_back"
    bad = {"outcome": "failed", "cause": "release", "reason": "x"}
    doc = judge(made, {}, gate={**gate, "cause": "operator"}, backs={"w1": bad}, undone=False)
    assert (doc["verdict"], doc["workers"][0]["outcome"]) == ("aborted", "rollback_failed")


def test_failed_in_an_earlier_run_spends_and_is_blamed_on_the_release():
    old = record(outcome="reverted", cause="release", outcome_reason="probe", verdict="aborted")
    made = plan(fleet(2, w1={"census": census(record=old), "staged": staged()}), solver_max_fail_percentage=0.0)
    doc = judge(made, {})
    assert doc["verdict"] == "aborted"
    assert doc["workers"][0]["cause"] == "release"


def test_the_books_are_compared_on_the_same_journal_only():
    made = plan(fleet(1))
    after = census("1.3.0", release="1.3.0-new")
    after["worker"]["totals"] = {"accepted": 30, "uncertain": 2, "expired": 1}
    doc = judge(made, {"w1": {"outcome": "updated"}}, {"w1": after})
    assert _verdict.lost_tasks(doc) == {"uncertain": 2, "expired": 1}
    after["worker"]["journal"] = {"id": "other"}
    assert judge(made, {"w1": {"outcome": "updated"}}, {"w1": after})["workers"][0]["totals"]["after"] is None


def test_a_rollback_of_named_workers_is_completed_when_these_are_back():
    there = census("1.3.0", release="1.3.0-new", record=record(verdict="completed"))
    workers = {"w1": {"census": there, "staged": None}, "w2": {"census": there, "staged": None}}
    made = plan(workers, kind="rollback", solver_version="", solver_only=["w1"])
    assert judge(made, {"w1": {"outcome": "updated"}}, {"w1": census(), "w2": there})["verdict"] == "completed"


def test_progress_line_says_the_place():
    line = _lines.progress_line("w3", _step.outcome(PLANNED, GOOD), 3, 8)
    assert line == "w3 updated 1.2.0 -> 1.3.0 in 1.5 s, 12 tasks open when its drain began (3 of 8 done)"
    bad = _step.outcome(PLANNED, {**GOOD, "verify": FAILED, **REVERTED})
    assert _lines.progress_line("w4", bad, 4, 8) == "w4 REVERTED [release] verify: it broke (4 of 8 done)"


def recovered(own, **settings):
    """The verdict and the exit's words of a recovery in which w2 is OWN, and all others serve."""
    made = plan({"w1": {"census": AT_TARGET}, "w2": {"census": own}, "w3": {"census": AT_TARGET}}, kind="recover",
                solver_version="", **settings)
    doc = _verdict.verdict(made, {}, dict.fromkeys(("w1", "w3"), AT_TARGET) | {"w2": own})
    return doc["verdict"], _verdict.not_done(doc, made)


QUARANTINED = {"outcome": "quarantined", "outcome_reason": "revert: it hangs", "ended_at": "2026-11-24T02:00:00Z"}


@pytest.mark.parametrize(("own", "part"), [
    ({"finding": "hung", "worker": None, "rollout": record(**QUARANTINED)},
     "hung; rollout r0 left it quarantined (revert: it hangs); rollback.yml with solver_only"),
    ({"finding": "dead", "worker": None}, "dead, and no rollout of ours left it so; look into its log"),
    (census(state="failed"), "failed, and no rollout of ours"),
    (census(state="drained", drain={"owner": "ada", "version": "1.2.0"}), "resume.yml with solver_resume_foreign"),
])
def test_a_recovery_is_completed_only_when_every_worker_serves(own, part):
    word, why = recovered(own)
    assert word == "incomplete"
    assert list(why) == ["w2"]
    assert why["w2"].startswith("w2 does not serve: excluded (")
    assert part in why["w2"]


def test_whom_the_operator_leaves_out_of_a_recovery_is_no_failure_of_it():
    own = {"finding": "dead", "worker": None}
    assert recovered(own, solver_only=["w1"]) == ("completed", {})
    assert recovered(own, solver_exclude=["w2"]) == ("completed", {})
    assert recovered(census("1.3.0", release="1.3.0-new")) == ("completed", {})


def test_mixed_versions_are_those_at_the_end():
    made = plan(fleet(3) | {"w4": updated()})
    assert made["warnings"] == ["the fleet runs mixed versions: 1.2.0, 1.3.0"]
    outcomes = {name: {"outcome": "updated"} for name in ("w1", "w2", "w3")}
    assert judge(made, outcomes)["warnings"] == []
    mixed = dict.fromkeys(made["workers"], AT_TARGET) | {"w1": census()}
    assert judge(made, outcomes, mixed)["warnings"] == made["warnings"]
    assert judge(plan(fleet(4)), {}, mixed)["warnings"] == made["warnings"], "also where it began with one"
    assert judge(made, {}, {}, check_mode=True)["warnings"] == made["warnings"]


def test_what_a_workflow_gets_is_small_and_no_setting():
    made = {**plan(), "started_at": "2026-11-29T01:00:00Z", "ended_at": "2026-11-29T01:02:05Z"}
    outcomes = {name: {"outcome": "updated"} for name in ("w1", "w2", "w3")} | {"w4": {"outcome": "reverted"}}
    stats = _verdict.stats_of(judge(made, outcomes), "solver_workers")
    assert stats["solver_last_counts"] == {"reverted": 1, "updated": 3}
    assert (stats["solver_last_verdict"], stats["solver_last_duration_s"]) == ("incomplete", 125)
    assert not {*stats} & {*_settings.SETTINGS}
    assert {*stats} <= _settings.INTERNAL  # so the next job of a workflow, which is given them, is not refused
    of_a_region = _verdict.stats_of(judge(made, outcomes), "solver_eu")
    assert of_a_region == {**stats, "solver_last_region_solver_eu": "incomplete"}
    assert _settings_rules.unknown_names(of_a_region) == []


def test_a_canary_that_died_while_the_rollout_waited_to_be_promoted_is_no_good_end():
    made = plan(solver_strategy="canary")
    gate = {"cause": _gate.AWAITS, "reason": "solver_promote=now goes on"}
    outcomes = {"w1": {"outcome": "updated"}}
    waits = judge(made, outcomes, {"w1": AT_TARGET}, gate=gate)
    assert waits["verdict"] == "awaiting_promotion"
    assert _verdict.not_done(waits, made) == {}
    doc = judge(made, outcomes, {"w1": {"finding": "dead", "worker": None}}, gate=gate)
    assert (doc["verdict"], doc["reasons"]) == ("aborted", ["w1 failed while the rollout waited to be promoted"])
    assert "w1" in _verdict.not_done(doc, made)


def test_a_promotion_waits_whoever_else_failed_as_long_as_the_budget_bears_it():
    gone = {"census": {"unreachable": True, "msg": "no route"}}
    gate = {"cause": _gate.AWAITS, "reason": "solver_promote=now goes on"}
    for lost, word in ((["w7"], "awaiting_promotion"), (["w5", "w6", "w7"], "aborted")):
        made = plan(fleet(8, **dict.fromkeys(lost, gone)), solver_strategy="canary")
        final = {**dict.fromkeys(made["workers"], AT_TARGET), **dict.fromkeys(lost, gone["census"])}
        assert judge(made, {"w1": {"outcome": "updated"}}, final, gate=gate)["verdict"] == word
