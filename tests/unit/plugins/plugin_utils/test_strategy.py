# SPDX-License-Identifier: GPL-3.0-or-later
"""What a strategy makes of a fleet: stages, refusals, and what is known from a run that was killed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate, _plan, _plan_lines
from rollout_kit import RUN, SETTINGS, census, fleet, plan, record, staged

JUDGED = {"word": "promote", "at": "2026-11-24T02:00:00Z", "reason": "the new release is as good"}
BASELINE = {"arm": "canary", "at": "2026-11-24T02:00:00Z", "journal": "j", "looks": 2, "books": {
    "succeeded": 1, "failed": 0, "uncertain": 0, "expired": 0, "apart": 0, "times": []}}


def canary(workers: Any = None, strata: Any = None, measured: Any = None, **settings: Any) -> dict[str, Any]:
    workers = workers or fleet()
    run = {**RUN, "machines": dict.fromkeys(workers, "m1"), "routers": {}, "strata": strata or {},
           "measured": measured or {}}
    return _plan.make_plan(workers, {**SETTINGS, "solver_strategy": "canary", **settings}, run)


def known(there: tuple[str, ...] = ("w1",), size: int = 3, rollout_id: str = "r0", verdict: Any = None,
          **more: Any) -> dict[str, Any]:
    """A fleet with records of a rollout by canaries; THERE have been updated by it."""
    def one(name: str) -> dict[str, Any]:
        own = record(rollout_id, verdict=verdict, strategy="canary", **more)
        if name in there:
            return {"census": census("1.3.0", release="1.3.0-new", record=own), "staged": staged(at_target=True)}
        return {"census": census(record=own), "staged": staged()}

    return {name: one(name) for name in (f"w{number}" for number in range(1, size + 1))}


def stages(made: dict[str, Any]) -> list[tuple[list[str], list[str], int, str]]:
    return [(own["workers"], own["there"], own["tolerated"], own["after"]) for own in made["stages"]]


def test_the_first_by_name_is_the_canary_and_none_may_fail():
    made = canary(fleet(11), solver_order="name")
    assert stages(made) == [(["w1"], [], 0, "bake"), ([f"w{n}" for n in range(2, 12)], [], 2, "nothing")]
    assert made["order"] == [f"w{n}" for n in range(1, 12)]
    assert made["bake"]["control"] == [f"w{n}" for n in range(2, 12)]
    failed = {"w1": {"outcome": "failed", "cause": "host"}}
    said = _gate.gate(made, failed, {}, _gate.Asking("w2"), _gate.Stall(0, 60))
    assert (said.open, said.cause, "w1 of stage 1 failed" in said.reason) == (False, "budget", True)


@pytest.mark.parametrize(("size", "count"), [(2, 1), (19, 1), (20, 1), (40, 2), (100, 5)])
def test_one_canary_or_five_percent(size: int, count: int):
    made = canary(fleet(size))
    assert made["bake"]["canaries"] == [f"w{number}" for number in range(1, count + 1)]


def test_one_of_each_stratum():
    strata = {"w1": "zone b", "w2": "zone a", "w3": "zone b", "w4": "zone a"}
    assert canary(strata=strata)["bake"]["canaries"] == ["w1", "w2"]
    # One that does not serve is no good canary where there is another.
    workers = fleet(4, w1={"census": census(state="failed"), "staged": staged()})
    assert canary(workers, strata=strata)["bake"]["canaries"] == ["w2", "w3"]


def test_the_rest_goes_by_the_stages_that_are_set():
    made = canary(fleet(8), solver_stages=[2, "50%"], solver_order="name")
    assert [len(own["workers"]) for own in made["stages"]] == [1, 2, 4, 1]


def test_a_canary_that_is_there_has_no_turn_and_is_compared_all_the_same():
    made = canary(known())
    assert made["continued"]
    assert stages(made)[0] == ([], ["w1"], 0, "bake")
    assert made["order"] == ["w2", "w3"]
    assert _gate.gate(made, {"w1": {"outcome": "unreachable"}}, {}, _gate.Asking("w2"),
                      _gate.Stall(0, 60)).cause == "budget"


def test_a_comparison_goes_on_by_its_records():
    workers = known(baseline=BASELINE)
    for name in ("w2", "w3"):
        workers[name]["census"]["rollout"]["rollout"]["baseline"] = {**BASELINE, "arm": "control"}
    assert set(canary(workers)["bake"]["baselines"]) == {"w1", "w2", "w3"}
    assert canary(workers, solver_force=True)["bake"]["baselines"] == {}
    # A canary that has its turn only now has books from before it.
    left = known(there=(), baseline=BASELINE)
    assert canary(left)["bake"]["baselines"] == {}


def test_what_was_judged_holds_if_most_records_say_so():
    assert canary(known(judgement=JUDGED))["bake"]["judged"] == JUDGED
    alone = known()
    alone["w2"]["census"]["rollout"]["rollout"]["judgement"] = {**JUDGED, "word": "fail"}
    assert canary(alone)["bake"]["judged"] is None
    assert not canary(alone)["refused"]


def test_what_was_inconclusive_is_compared_anew():
    workers = known(judgement={**JUDGED, "word": "inconclusive"}, baseline=BASELINE, verdict="inconclusive")
    bake = canary(workers)["bake"]
    assert (bake["judged"], bake["baselines"]) == (None, {})


def test_a_release_that_failed_as_a_canary_is_not_tried_again():
    failed = {**JUDGED, "word": "fail", "reason": "it is worse"}
    workers = known(there=(), judgement=failed, verdict="rolled_back", outcome="not_attempted")
    for settings in ({}, {"solver_strategy": "rolling"}):
        text, = canary(workers, **settings)["refused"]
        assert "it is worse" in text
        assert "solver_force: true" in text
    assert not canary(workers, solver_force=True)["refused"]
    # Nobody has gone back yet: that is what is to be done now.
    assert not canary(known(judgement=failed))["refused"]
    one = known(there=(), verdict="rolled_back")
    one["w3"]["census"]["rollout"]["rollout"]["judgement"] = failed
    assert not canary(one)["refused"], "one record decides nothing"


def test_a_rollout_goes_on_with_the_strategy_that_it_began_with():
    other, = plan(known())["refused"]
    assert "began with solver_strategy canary" in other
    assert "rollback.yml" in other
    assert not plan(known(verdict="completed"))["refused"]
    assert not plan(known(), solver_rollout_id="mine")["refused"]
    begun = fleet(w1={"census": census("1.3.0", release="1.3.0-new", record=record()), "staged": staged()})
    began, = canary(begun)["refused"]
    assert "began with solver_strategy rolling" in began


@pytest.mark.parametrize("kind", ["rollback", "recover"])
def test_the_way_back_always_rolls(kind: str):
    made = plan(known(), kind=kind, solver_version="", solver_strategy="canary")
    assert made["strategy"] == "rolling"
    assert not made["refused"]


def test_a_fleet_with_nobody_to_compare_with_is_refused():
    text, = canary(fleet(1))["refused"]
    assert "w1" in text
    assert "solver_strategy: rolling" in text
    assert canary(fleet(2), strata={"w1": "a", "w2": "b"})["refused"]
    assert not canary(fleet(1), solver_promote="now")["refused"]


def test_what_cannot_be_judged_in_time_is_refused_and_what_will_be_needed_is_said():
    slow = {f"w{number}": (0, 300.0) for number in range(1, 5)}
    text, = canary(measured=slow, solver_canary_bake_max=3600)["refused"]
    for name in ("solver_canary_min_tasks", "solver_canary_bake_max", "solver_strategy: rolling"):
        assert name in text
    made = canary(measured={f"w{number}": (10, 60.0) for number in range(1, 5)}, solver_canary_bake=60)
    assert not made["refused"]
    assert made["estimate_s"] >= 600
    words = "\n".join(_plan_lines.plan_lines(made))
    for text in ("canary: 4 workers", "stage 1 (canaries; none may fail): w1 1.2.0 -> 1.3.0", "about 10 min at",
                 "10 tasks ended on w1 in 60 s", "at most 60 min"):
        assert text in words
    assert "is not known" in "\n".join(_plan_lines.plan_lines(canary()))
    manual = "\n".join(_plan_lines.plan_lines(canary(solver_promote="manual")))
    assert "awaiting_promotion" in manual


def test_what_a_judgement_closes_the_gate_for():
    made = canary()
    assert _gate.closed_by_judgement("promote", "good", made) is None
    manual = _gate.closed_by_judgement("promote", "good", canary(solver_promote="manual"))
    assert (manual["cause"], "solver_promote=now" in manual["reason"]) == (_gate.AWAITS, True)
    done = {"w1": {"outcome": "updated"}}
    for word, settings, back in (("fail", {}, ["w1"]), ("fail", {"on_abort": "stop"}, []), ("inconclusive", {}, []),
                                 ("inconclusive", {"solver_on_inconclusive": "return"}, ["w1"])):
        how = dict(settings)
        on_abort = how.pop("on_abort", "rollback")
        made = canary(**how)
        closed = _gate.closed_by_judgement(word, "why", made)
        assert _gate.back_plan(made, done, closed["cause"], on_abort)["order"] == back
