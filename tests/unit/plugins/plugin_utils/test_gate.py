# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: budget, floor, requests, lock; and who is rolled back."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import census, fleet, plan, record, staged, updated

GONE = {"census": {"unreachable": True, "msg": "no route"}, "staged": None}
HELD = census(state="drained", drain={"owner": "r1"})


def live(made, **special):
    return {name: {"census": special.get(name, census())} for name in made["lock"]["workers"]}


def ask(made, outcomes=None, seen=None, wave=("w1",), stalled=0.0):
    return _gate.gate(made, outcomes or {}, live(made) if seen is None else seen, wave, _gate.Stall(stalled, 900.0))


def test_a_healthy_fleet_is_let_through():
    assert ask(plan()) == (True, "", "", False)


def test_unreachable_spends_but_is_not_known_to_be_out():
    made = plan(fleet(4, w4=GONE))
    assert made["refused"] == []
    assert ask(made).open  # one of four is 25 %, not above 25 %
    assert ask(plan(fleet(4, w4=GONE), solver_max_fail_percentage=0.0)).cause == "budget"


def test_a_worker_that_is_lost_after_its_turn_spends_as_well():
    made = plan(fleet(4, w4=updated()), solver_max_fail_percentage=0.0)
    outcomes = {"w1": {"outcome": "updated"}}
    for name in ("w1", "w4"):
        seen = live(made)
        seen[name] = {"unreachable": True, "msg": "gone"}
        lost = _gate.lost_later(made, outcomes, seen)
        assert lost == [name]
        decision = ask(made, _gate.with_losses(outcomes, lost), seen, ["w2"])
        assert (decision.open, decision.cause) == (False, "budget")
        assert ask(made, outcomes, live(made), ["w2"]).open
    seen = live(made)
    seen["w2"] = {"unreachable": True}
    assert _gate.lost_later(made, {"w2": {"outcome": "unreachable"}}, seen) == [], "it was counted when it was lost"


def test_each_worker_that_is_back_resets_the_deadline_of_a_rollback():
    backs = {"w1": {"outcome": "updated"}, "w2": {"outcome": "failed"}, "w3": {}}
    assert _gate.returned_count(backs) == 1


def test_a_later_run_is_told_what_became_of_a_worker_but_not_that_it_went_back():
    outcomes = {"w1": {"outcome": "reverted", "cause": "release", "reason": "no", "log": ["x"]}, "w2": {},
                "w3": {"outcome": "updated"}}
    assert _gate.told(outcomes, {"w3": {"outcome": "updated"}}) == {
        "w1": {"outcome": "reverted", "cause": "release", "outcome_reason": "no"}}


def test_zero_means_zero():
    made = plan(solver_max_fail_percentage=0.0)
    assert ask(made).open
    assert ask(made, {"w1": {"outcome": "reverted"}}, wave=["w2"]).cause == "budget"


@given(st.integers(1, 60), st.integers(0, 99), st.data())
def test_the_budget_is_strictly_above_over_the_whole_fleet(size, budget, data):
    made = plan(fleet(size), solver_max_fail_percentage=float(budget))
    bad = data.draw(st.lists(st.sampled_from(made["order"]), unique=True))
    words = st.sampled_from(["failed", "reverted", "unreachable"])
    decision = ask(made, {name: {"outcome": data.draw(words)} for name in bad}, wave=[])
    assert decision.open == (len(bad) * 100 <= budget * size)


def test_the_floor_waits_and_then_aborts_with_the_remedy():
    made = plan(fleet(4))
    seen = live(made, w3=HELD)
    waiting = ask(made, seen=seen)
    assert (waiting.open, waiting.wait, waiting.cause) == (False, True, "floor")
    assert waiting.reason == "w3 is out of service; with w1 fewer than 3 of 4 workers would serve"
    over = ask(made, seen=seen, stalled=900.0)
    assert (over.open, over.wait) == (False, False)
    assert "raise solver_max_unavailable" in over.reason


def test_a_worker_that_does_not_serve_may_always_be_updated():
    made = plan(fleet(4))
    assert ask(made, seen=live(made, w1=HELD, w2=HELD, w3=HELD), wave=["w1"]).open


def test_a_wider_window_bears_a_sick_worker():
    made = plan(fleet(4), window=2)
    assert ask(made, seen=live(made, w3=HELD)).open
    assert not ask(made, seen=live(made, w3=HELD), wave=["w1", "w2"]).open


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_no_wave_takes_the_fleet_below_its_floor(size, window, data):
    """Whatever is out already: when the gate opens for serving workers, enough others serve."""
    made = plan(fleet(size), window=window)
    out = set(data.draw(st.lists(st.sampled_from(made["order"]), unique=True)))
    wave = data.draw(st.sampled_from(made["waves"]))
    seen = live(made, **dict.fromkeys(out, HELD))
    decision = ask(made, seen=seen, wave=wave)
    leaving = set(wave) - out
    serving_then = size - len(out - set(wave)) - len(wave)
    if decision.open and leaving:
        assert serving_then >= size - window
    if not leaving:
        assert decision.open


def test_a_worker_lost_in_the_middle_of_its_update_counts_as_out():
    made = plan(fleet(10))
    seen = live(made)
    seen["w1"] = {"unreachable": True, "msg": "gone"}
    assert ask(made, {"w1": {"outcome": "unreachable", "step": "verify"}}, seen, ["w2"]).wait
    assert ask(made, {"w1": {"outcome": "unreachable"}}, seen, ["w2"]).open  # it was never touched
    assert ask(made, {"w1": {"outcome": "unreachable", "step": "verify"}}, wave=["w2"]).open  # it came back, serving


def test_quarantined_workers_use_the_window_up_for_good():
    made = plan(fleet(10))
    decision = ask(made, {"w1": {"outcome": "quarantined"}}, wave=["w2"])
    assert (decision.open, decision.wait, decision.cause) == (False, False, "floor")
    assert ask(plan(fleet(10), window=2), {"w1": {"outcome": "quarantined"}}, wave=["w2"]).open


def test_requests_are_seen():
    made = plan()
    asked = record()
    asked["request"] = {"what": "pause", "by": "ada", "reason": "lunch"}
    seen = live(made)
    seen["w3"]["record"] = asked
    assert ask(made, seen=seen).cause == "paused"
    assert "pause asked for by ada (lunch)" in ask(made, seen=seen).reason
    asked["request"]["what"] = "abort"
    assert ask(made, seen=seen).cause == "operator"


def test_a_lost_lock_ends_it():
    made = plan()
    seen = live(made)
    seen["w2"] = {"failed": True, "failure": {"code": "lock_lost", "message": "run x holds it"}}
    assert ask(made, seen=seen).cause == "lock"


def test_no_progress_ends_it():
    assert ask(plan(), stalled=901.0).cause == "progress"
    assert ask(plan(), stalled=899.0).open


def test_an_inconclusive_wave_ends_it_and_spends_nothing():
    made = plan(solver_max_fail_percentage=0.0)
    decision = ask(made, {"w1": {"outcome": "returned", "reason": "the provider solves nothing"}}, wave=["w2"])
    assert decision.cause == "inconclusive"
    assert _gate.spent_by(made, {"w1": {"outcome": "returned"}}) == []


def test_proven_failures_beyond_the_budget_count_more_than_an_inconclusive_one():
    made = plan(fleet(4), window=2, solver_max_fail_percentage=0.0)
    outcomes = {"w1": {"outcome": "reverted", "cause": "release"}, "w2": {"outcome": "returned", "reason": "x"}}
    assert ask(made, outcomes, wave=["w3"]).cause == "budget"


BAD = {"outcome": "reverted", "cause": "release"}
UPDATED = {"outcome": "updated"}


def test_all_updated_workers_go_back_last_first_and_by_window():
    made = plan(fleet(6), window=2)
    outcomes = {"w1": UPDATED, "w2": UPDATED, "w3": UPDATED, "w4": BAD, "w5": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == [["w3", "w2"], ["w1"]]


def test_a_rollback_keeps_the_window_and_the_floor_like_any_other():
    made = plan(fleet(6), window=2)
    lost = {"outcome": "unreachable", "cause": "host", "step": "drain"}
    outcomes = {"w1": UPDATED, "w2": UPDATED, "w3": lost, "w4": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == [["w2"], ["w1"]]
    seen = live(made)
    seen["w3"] = {"unreachable": True, "msg": "gone"}
    stall = _gate.Stall(0.0, 900.0)
    assert _gate.gate_back(made, outcomes, seen, ["w2"], stall).open
    assert _gate.gate_back(made, outcomes, seen, ["w2", "w1"], stall).wait
    assert not _gate.gate_back(made, outcomes, seen, ["w2", "w1"], _gate.Stall(901.0, 900.0)).wait
    seen["w1"] = {"failed": True, "failure": {"code": "lock_lost", "message": "x"}}
    assert _gate.gate_back(made, outcomes, seen, ["w2"], stall).cause == "lock"


def test_workers_that_an_earlier_run_of_the_rollout_updated_go_back_too():
    early = {"census": census("1.3.0", release="1.3.0-new", record=record("r0")), "staged": staged(at_target=True)}
    never = updated()  # it has been there all along
    made = plan(fleet(4, w1=early, w4=never), solver_max_fail_percentage=0.0)
    assert _gate.roll_back(made, {"w2": BAD}, "budget", "rollback") == [["w1"]]


def test_one_that_was_seen_out_of_service_and_then_lost_is_still_out():
    made = plan(fleet(4, w1={"census": HELD | {"rollout": record("r1", outcome="quarantined", cause="release")},
                             "staged": staged()}), new_id="r1")
    assert (made["workers"]["w1"]["action"], made["workers"]["w1"]["serving"]) == ("failed", False)
    seen = live(made) | {"w1": {"unreachable": True, "msg": "gone"}}
    assert ask(made, {}, seen, ["w2"]).wait
    assert ask(made, {"w1": {"outcome": "failed", "cause": "drain"}}, seen, ["w2"]).wait
    # of one that served nobody knows
    seen = live(made) | {"w1": {"census": census()}, "w3": {"unreachable": True, "msg": "gone"}}
    assert ask(made, {}, seen, ["w2"]).open


LEFT = {"owner": "r0", "expired": False, "version": "1.2.0"}


def left(version="1.2.0", release="1.2.0-old"):
    """A worker that a dead run of this rollout holds in its drain."""
    return {"census": census(version, "drained", release, LEFT, record("r0")), "staged": staged()}


@pytest.mark.parametrize("cause", ["budget", "paused", "operator", "inconclusive", "floor", "progress", "hook"])
def test_whoever_ends_a_run_nobody_stays_in_the_drain_of_a_dead_one(cause):
    made = plan(fleet(4, w2=left(), w3=left("1.3.0", "1.3.0-new")))
    assert made["order"][:2] == ["w2", "w3"]
    assert _gate.roll_back(made, {}, cause, "stop") == [["w2"], ["w3"]]
    assert _gate.roll_back(made, {"w2": UPDATED}, cause, "stop") == [["w3"]]
    assert not _gate.undoes(made, {}, cause, "rollback")
    assert _gate.roll_back(made, {}, "", "rollback") == []


def test_who_lost_the_lock_leaves_all_to_the_one_that_has_it():
    assert _gate.roll_back(plan(fleet(4, w2=left())), {}, "lock", "rollback") == []


def test_the_ones_left_behind_go_back_first_since_they_are_out():
    """A serving one in the window beside them would wait for them until the progress deadline."""
    made = plan(fleet(4, w3=left("1.3.0", "1.3.0-new")), solver_max_fail_percentage=0.0)
    outcomes = {"w1": UPDATED, "w2": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == [["w3"], ["w1"]]
    seen = live(made, w3=left("1.3.0", "1.3.0-new")["census"])
    assert _gate.gate_back(made, outcomes, seen, ["w3"], _gate.Stall(0.0, 900.0)).open
    assert _gate.gate_back(made, outcomes, seen, ["w1"], _gate.Stall(0.0, 900.0)).wait


def test_nobody_goes_back_for_another_cause_or_when_it_is_not_wanted():
    made = plan(fleet(6))
    lost = {"w1": UPDATED, "w2": {"outcome": "unreachable", "cause": "host"},
            "w3": {"outcome": "failed", "cause": "drain"}}
    assert _gate.roll_back(made, lost, "budget", "rollback") == []
    bad = {"w1": UPDATED, "w2": BAD, "w3": BAD}
    assert _gate.roll_back(made, bad, "budget", "stop") == []
    assert _gate.roll_back(made, bad, "operator", "rollback") == []
    assert _gate.roll_back({**made, "kind": "rollback"}, bad, "budget", "rollback") == []


def test_control_workers_are_outside_the_wave_and_not_yet_updated_first():
    made = plan(fleet(4))
    rollout = {"workers": {name: {"control_socket": f"/{name}"} for name in made["workers"]}}
    assert [own["host"] for own in _gate.control_workers(made, rollout, ["w2"])] == ["w4", "w3", "w1"]


def test_each_of_a_wave_begins_with_another_control_worker():
    made = plan(fleet(6))
    rollout = {"workers": {name: {"control_socket": f"/{name}"} for name in made["workers"]}}
    wave = ["w2", "w3"]
    asked = {one: [own["host"] for own in _gate.control_workers(made, rollout, wave, one)] for one in wave}
    assert asked == {"w2": ["w6", "w5", "w4", "w1"], "w3": ["w5", "w4", "w6", "w1"]}


def routed(seen, **views):
    """What the gate sees with two routers; a view is the workers that one router serves, or why it says nothing."""
    answers = {router: {"unreachable": True, "msg": view} if isinstance(view, str) else
               {"servers": {name: {"serving": name in view} for name in seen}} for router, view in views.items()}
    return _gate.with_routers(seen, {name: {"name": name} for name in seen}, answers)


def test_by_the_routers_view_a_worker_serves_where_all_that_answer_send_it_tasks():
    made = plan(fleet(3))
    everyone = ("w1", "w2", "w3")
    assert ask(made, seen=routed(live(made), r1=everyone, r2=everyone)).open
    assert ask(made, seen=routed(live(made), r1=everyone, r2="no route")).open
    short = ask(made, seen=routed(live(made), r1=everyone, r2=("w1", "w3")))
    assert (short.open, short.cause, short.wait) == (False, "floor", True)
    assert "w2 is out of service" in short.reason


def test_no_router_that_answers_is_no_proof_that_anybody_serves():
    made = plan(fleet(3))
    seen = routed(live(made), r1="no route", r2="no route")
    assert ask(made, seen=seen) == (
        False, "floor", "no router can be asked who serves (r1: no route; r2: no route); bring one back, or set "
        "solver_floor_view: workers", True)
    assert not ask(made, seen=seen, stalled=900.0).wait


BROKEN = {"hook": "before_wave", "stops": True, "task": "Silence the alert", "reason": "401\nno"}


def test_a_hook_before_a_wave_closes_the_gate_but_never_that_of_a_rollback():
    facts = {"w1": {"solver_gate": {"open": True, "looks": 1}, "solver_wave_hook_failures": [BROKEN]}, "w2": {}}
    last = _gate.last_gate(facts)
    assert (last["open"], last["cause"]) == (False, "hook")
    assert "the hook before_wave failed in its task 'Silence the alert': 401 no" in last["reason"]
    assert _gate.last_gate(facts, back=True) == {}
    only_warns = {"w1": {**facts["w1"], "solver_wave_hook_failures": [{**BROKEN, "stops": False}]}}
    assert _gate.last_gate(only_warns)["open"]
    of_worker = {"w1": {"solver_gate": {"open": True}, "solver_hook_failures": [{**BROKEN, "worker": "w1"}]}}
    assert _gate.last_gate(of_worker)["open"]
    closed = {"open": False, "cause": "budget", "looks": 2}
    assert _gate.last_gate({**facts, "w2": {"solver_gate": closed}}) == closed


def test_the_failures_of_a_wave_are_told_once():
    of_worker = {"hook": "before_worker", "stops": True, "worker": "w2", "task": "", "reason": "no"}
    facts = {"w1": {"solver_wave_hook_failures": [BROKEN]},
             "w2": {"solver_wave_hook_failures": [BROKEN], "solver_hook_failures": [of_worker]}}
    assert _gate.hook_failures(facts) == [BROKEN, of_worker]
    assert _gate.hook_outcome([of_worker], plan(), "w2")["cause"] == "hook"


def test_the_way_back_of_one_left_behind_keeps_what_its_drain_is():
    """It takes the drain over, and a lease that ends meanwhile must not let what was never verified serve."""
    made = plan(fleet(4, w3=left("1.3.0", "1.3.0-new")), solver_max_fail_percentage=0.0)
    back = _gate.back_plan(made, {"w1": UPDATED, "w2": BAD}, "budget", "rollback")
    assert (back["order"], back["undoes"]) == (["w3", "w1"], True)
    own, other = back["workers"]["w3"], back["workers"]["w1"]
    assert (own["release"], own["steal"], own["serving"], own["on_expire"]) == ("1.2.0-old", True, False, "hold")
    assert (other["release"], other["steal"], other["serving"], other["on_expire"]) == ("1.2.0-old", False, True, None)
