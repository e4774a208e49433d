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


def ask(made, outcomes=None, seen=None, name="w1", flight=(), stalled=0.0, decide=_gate.gate):
    return decide(made, outcomes or {}, live(made) if seen is None else seen, _gate.Asking(name, flight),
                  _gate.Stall(stalled, 900.0))


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
        decision = ask(made, _gate.with_losses(outcomes, lost), seen, "w2")
        assert (decision.open, decision.cause) == (False, "budget")
        assert ask(made, outcomes, live(made), "w2").open
    seen = live(made)
    seen["w2"] = {"unreachable": True}
    assert _gate.lost_later(made, {"w2": {"outcome": "unreachable"}}, seen) == [], "it was counted when it was lost"


def test_a_worker_that_does_not_go_back_may_be_lost_while_others_do():
    made = plan(fleet(4), solver_max_fail_percentage=0.0)
    outcomes = {"w1": UPDATED, "w2": BAD}
    back = _gate.back_plan(made, outcomes, "budget", "rollback")
    seen = live(made) | {"w4": {"unreachable": True, "msg": "gone"}}
    assert _gate.lost_later(back, outcomes, seen) == []


def test_zero_means_zero():
    made = plan(solver_max_fail_percentage=0.0)
    assert ask(made).open
    assert ask(made, {"w1": {"outcome": "reverted"}}, name="w2").cause == "budget"


@given(st.integers(1, 60), st.integers(0, 99), st.data())
def test_the_budget_is_strictly_above_over_the_whole_fleet(size, budget, data):
    made = plan(fleet(size), solver_max_fail_percentage=float(budget))
    bad = data.draw(st.lists(st.sampled_from(made["order"]), unique=True))
    words = st.sampled_from(["failed", "reverted", "unreachable"])
    decision = ask(made, {name: {"outcome": data.draw(words)} for name in bad})
    assert decision.open == (len(bad) * 100 <= budget * size)


def test_the_floor_waits_and_then_aborts_with_the_remedy():
    made = plan(fleet(4))
    seen = live(made, w3=HELD)
    waiting = ask(made, seen=seen)
    assert (waiting.open, waiting.wait, waiting.cause) == (False, True, "floor")
    assert waiting.reason == "w3 is out of service; with w1 fewer than 3 of 4 workers would serve"
    for seconds in (900.0, 930.0):  # the gate does not look at the very moment
        over = ask(made, seen=seen, stalled=seconds)
        assert (over.open, over.wait, over.cause) == (False, False, "floor")
        assert "raise solver_max_unavailable" in over.reason


def test_a_worker_that_cannot_accept_is_out_of_service_though_it_runs():
    made = plan(fleet(4))
    full = {**census(), "worker": {**census()["worker"], "accepting": False}}
    waiting = ask(made, seen=live(made, w3=full))
    assert (waiting.open, waiting.cause) == (False, "floor")
    assert waiting.reason.startswith("w3 is out of service")


def test_a_worker_that_does_not_serve_may_always_be_updated():
    made = plan(fleet(4))
    assert ask(made, seen=live(made, w1=HELD, w2=HELD, w3=HELD), name="w1").open


def test_a_wider_window_bears_a_sick_worker():
    made = plan(fleet(4), window=2)
    assert ask(made, seen=live(made, w3=HELD)).open
    assert not ask(made, seen=live(made, w3=HELD), name="w2", flight=["w1"]).open


def test_one_that_the_plan_leaves_out_of_service_takes_its_part_of_the_window():
    out = {"census": census(state="drained", drain={"owner": "somebody"}), "staged": staged()}
    made = plan(fleet(6, w2=out), window=3, solver_foreign_drain="exclude")
    assert made["workers"]["w2"]["action"] == "excluded"
    seen = live(made, w2=out["census"])
    assert ask(made, seen=seen, name="w3", flight=["w1"]).open
    assert ask(made, seen=seen, name="w4", flight=["w1", "w3"]).wait


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_no_admission_takes_the_fleet_below_its_floor(size, window, data):
    """Whoever is out already and whoever is in flight: when the gate opens for one that serves, enough others serve."""
    made = plan(fleet(size), window=window)
    out = set(data.draw(st.lists(st.sampled_from(made["order"]), unique=True)))
    name = data.draw(st.sampled_from(made["order"]))
    flight = set(data.draw(st.lists(st.sampled_from(made["order"]), unique=True, max_size=window))) - {name}
    decision = ask(made, seen=live(made, **dict.fromkeys(out, HELD)), name=name, flight=flight)
    if decision.open and name not in out:
        assert size - len(out | flight | {name}) >= size - window
    if name in out:
        assert decision.open, "one that does not serve may always be updated"


def test_a_worker_lost_in_the_middle_of_its_update_counts_as_out():
    made = plan(fleet(10))
    seen = live(made)
    seen["w1"] = {"unreachable": True, "msg": "gone"}
    assert ask(made, {"w1": {"outcome": "unreachable", "step": "verify"}}, seen, "w2").wait
    assert ask(made, {"w1": {"outcome": "unreachable"}}, seen, "w2").open  # it was never touched
    assert ask(made, {"w1": {"outcome": "unreachable", "step": "verify"}}, name="w2").open  # it came back, serving


def test_quarantined_workers_use_the_window_up_for_good():
    made = plan(fleet(10))
    decision = ask(made, {"w1": {"outcome": "quarantined"}}, name="w2")
    assert (decision.open, decision.wait, decision.cause) == (False, False, "floor")
    assert ask(plan(fleet(10), window=2), {"w1": {"outcome": "quarantined"}}, name="w2").open


def asking_for(made, what, *names):
    seen = live(made)
    for name in names:
        seen[name]["record"] = {**record(), "request": {"what": what, "by": "ada", "reason": "lunch"}}
    return seen


def test_requests_are_seen():
    made = plan()
    assert ask(made, seen=asking_for(made, "pause", "w2", "w3")).cause == "paused"
    assert "pause asked for by ada (lunch)" in ask(made, seen=asking_for(made, "pause", *made["order"])).reason
    assert ask(made, seen=asking_for(made, "abort", "w2", "w3")).cause == "operator"


def test_of_three_or_more_one_alone_asks_for_nothing():
    """A request is left on all of them; one worker's record may say anything."""
    made = plan()
    assert ask(made, seen=asking_for(made, "pause", "w3")).open
    two = plan(fleet(2))
    assert ask(two, seen=asking_for(two, "pause", "w2")).cause == "paused"


def losing(made, *names):
    lost = {"failed": True, "failure": {"code": "lock_lost", "message": "run x holds it"}}
    return live(made) | dict.fromkeys(names, lost)


def test_a_lost_lock_ends_it():
    made = plan(fleet(5))
    assert made["lock"]["needed"] == 3
    assert ask(made, seen=losing(made, "w1")).cause == "lock", "its own"
    assert ask(made, seen=losing(made, "w2", "w3", "w4")).cause == "lock", "too few are ours"
    assert "w2, w3, w4 is lost: run x holds it" in ask(made, seen=losing(made, "w2", "w3", "w4")).reason


def test_one_worker_that_says_that_its_lock_is_lost_stops_no_turn_of_another():
    made = plan(fleet(5))
    decision = ask(made, seen=losing(made, "w2"))
    assert (decision.cause, decision.wait) == ("floor", True), "nobody knows whether it serves"
    assert ask(plan(fleet(5), window=2), seen=losing(made, "w2")).open


def test_no_progress_ends_it():
    assert ask(plan(), stalled=901.0).cause == "progress"
    assert ask(plan(), stalled=899.0).open


def test_who_gives_no_sign_for_longer_than_a_turn_takes_ends_it():
    assert _gate.stuck(["w1"], 1800.0, 900.0) is None
    assert _gate.stuck([], 1e6, 900.0) is None, "one that soaks may do so for as long as it was told to"
    decision = _gate.stuck(["w2", "w1"], 1801.0, 900.0)
    assert (decision.open, decision.cause) == (False, "progress")
    assert "w1, w2" in decision.reason


def test_an_inconclusive_turn_ends_it_and_spends_nothing():
    made = plan(solver_max_fail_percentage=0.0)
    decision = ask(made, {"w1": {"outcome": "returned", "reason": "the provider solves nothing"}}, name="w2")
    assert decision.cause == "inconclusive"
    assert _gate.spent_by(made, {"w1": {"outcome": "returned"}}) == []


def test_proven_failures_beyond_the_budget_count_more_than_an_inconclusive_one():
    made = plan(fleet(4), window=2, solver_max_fail_percentage=0.0)
    outcomes = {"w1": {"outcome": "reverted", "cause": "release"}, "w2": {"outcome": "returned", "reason": "x"}}
    assert ask(made, outcomes, name="w3").cause == "budget"


BAD = {"outcome": "reverted", "cause": "release"}
UPDATED = {"outcome": "updated"}


def test_all_updated_workers_go_back_last_first_and_by_window():
    made = plan(fleet(6), window=2)
    outcomes = {"w1": UPDATED, "w2": UPDATED, "w3": UPDATED, "w4": BAD, "w5": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == ["w3", "w2", "w1"]
    back = _gate.back_plan(made, outcomes, "budget", "rollback")
    assert [(stage["workers"], stage["window"]) for stage in back["stages"]] == [(["w3", "w2", "w1"], 2)]
    assert back["way_back"]
    assert _gate.back_plan(made, outcomes, "", "rollback")["stages"] == []


def test_a_rollback_keeps_the_window_and_the_floor_like_any_other():
    made = plan(fleet(6), window=2)
    lost = {"outcome": "unreachable", "cause": "host", "step": "drain"}
    outcomes = {"w1": UPDATED, "w2": UPDATED, "w3": lost, "w4": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == ["w2", "w1"]
    back = _gate.back_plan(made, outcomes, "budget", "rollback")
    assert back["stages"][0]["window"] == 1, "the one that is lost takes its part"
    seen = live(made)
    seen["w3"] = {"unreachable": True, "msg": "gone"}
    way_back = {"decide": _gate.gate_back}
    assert ask(made, outcomes, seen, "w2", **way_back).open
    assert ask(made, outcomes, seen, "w1", ["w2"], **way_back).wait
    assert not ask(made, outcomes, seen, "w1", ["w2"], 901.0, **way_back).wait
    seen["w1"] = {"failed": True, "failure": {"code": "lock_lost", "message": "x"}}
    assert ask(made, outcomes, seen, "w1", **way_back).cause == "lock"


def test_workers_that_an_earlier_run_of_the_rollout_updated_go_back_too():
    early = {"census": census("1.3.0", release="1.3.0-new", record=record("r0")), "staged": staged(at_target=True)}
    never = updated()  # it has been there all along
    made = plan(fleet(4, w1=early, w4=never), solver_max_fail_percentage=0.0)
    assert _gate.roll_back(made, {"w2": BAD}, "budget", "rollback") == ["w1"]


def test_one_that_was_seen_out_of_service_and_then_lost_is_still_out():
    made = plan(fleet(4, w1={"census": HELD | {"rollout": record("r1", outcome="quarantined", cause="release")},
                             "staged": staged()}), new_id="r1")
    assert (made["workers"]["w1"]["action"], made["workers"]["w1"]["serving"]) == ("failed", False)
    seen = live(made) | {"w1": {"unreachable": True, "msg": "gone"}}
    assert ask(made, {}, seen, "w2").wait
    assert ask(made, {"w1": {"outcome": "failed", "cause": "drain"}}, seen, "w2").wait
    # of one that served nobody knows
    seen = live(made) | {"w1": {"census": census()}, "w3": {"unreachable": True, "msg": "gone"}}
    assert ask(made, {}, seen, "w2").open


LEFT = {"owner": "r0", "expired": False, "version": "1.2.0"}


def left(version="1.2.0", release="1.2.0-old"):
    """A worker that a dead run of this rollout holds in its drain."""
    return {"census": census(version, "drained", release, LEFT, record("r0")), "staged": staged()}


@pytest.mark.parametrize("cause", ["budget", "paused", "operator", "inconclusive", "floor", "progress", "hook"])
def test_whoever_ends_a_run_nobody_stays_in_the_drain_of_a_dead_one(cause):
    made = plan(fleet(4, w2=left(), w3=left("1.3.0", "1.3.0-new")))
    assert made["order"][:2] == ["w2", "w3"]
    assert _gate.roll_back(made, {}, cause, "stop") == ["w2", "w3"]
    assert _gate.roll_back(made, {"w2": UPDATED}, cause, "stop") == ["w3"]
    assert not _gate.undoes(made, {}, cause, "rollback")
    assert _gate.roll_back(made, {}, "", "rollback") == []


def test_who_lost_the_lock_leaves_all_to_the_one_that_has_it():
    assert _gate.roll_back(plan(fleet(4, w2=left())), {}, "lock", "rollback") == []


def test_the_ones_left_behind_go_back_first_since_they_are_out():
    """A serving one in the window beside them would wait for them until the progress deadline."""
    made = plan(fleet(4, w3=left("1.3.0", "1.3.0-new")), solver_max_fail_percentage=0.0)
    outcomes = {"w1": UPDATED, "w2": BAD}
    assert _gate.roll_back(made, outcomes, "budget", "rollback") == ["w3", "w1"]
    seen = live(made, w3=left("1.3.0", "1.3.0-new")["census"])
    assert ask(made, outcomes, seen, "w3", decide=_gate.gate_back).open
    assert ask(made, outcomes, seen, "w1", decide=_gate.gate_back).wait


def test_nobody_goes_back_for_another_cause_or_when_it_is_not_wanted():
    made = plan(fleet(6))
    lost = {"w1": UPDATED, "w2": {"outcome": "unreachable", "cause": "host"},
            "w3": {"outcome": "failed", "cause": "drain"}}
    assert _gate.roll_back(made, lost, "budget", "rollback") == []
    bad = {"w1": UPDATED, "w2": BAD, "w3": BAD}
    assert _gate.roll_back(made, bad, "budget", "stop") == []
    assert _gate.roll_back(made, bad, "operator", "rollback") == []
    assert _gate.roll_back({**made, "kind": "rollback"}, bad, "budget", "rollback") == []


def references(made, asking, *others):
    workers = {name: {"control_socket": f"/{name}"} for name in made["workers"]}
    return _gate.reference_workers(made, workers, [*others, asking], asking)


def test_reference_workers_are_not_in_flight_and_the_not_yet_updated_come_first():
    made = plan(fleet(4))
    assert references(made, "w2") == [{"host": name, "control_socket": f"/{name}"} for name in ("w4", "w3", "w1")]
    down = plan(fleet(4, w4={"census": HELD, "staged": staged()}))
    assert "w4" not in [own["host"] for own in references(down, "w2")], "it does not serve"


def test_each_in_flight_begins_with_another_reference_worker():
    made = plan(fleet(6))
    asked = {one: [own["host"] for own in references(made, one, other)] for one, other in (("w2", "w3"), ("w3", "w2"))}
    assert asked == {"w2": ["w6", "w5", "w4", "w1"], "w3": ["w5", "w4", "w6", "w1"]}


def test_one_that_soaks_finds_a_reference_worker_though_its_place_in_flight_is_anothers():
    """It asks while it goes back; others may be in flight behind it in the plan's order, or nobody."""
    made = plan(fleet(4))
    workers = {name: {"control_socket": f"/{name}"} for name in made["workers"]}
    found = _gate.reference_workers(made, workers, ["w3"], "w1")
    assert [own["host"] for own in found] == ["w4", "w2"]
    assert [own["host"] for own in _gate.reference_workers(made, workers, [], "w4")] == ["w3", "w2", "w1"]


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


BROKEN = {"hook": "before_stage", "stops": True, "worker": "", "task": "Silence the alert", "reason": "401\nno"}


def test_a_hook_before_a_stage_closes_the_gate():
    closed = _gate.closed_gate({}, [BROKEN])
    assert closed["cause"] == "hook"
    assert "the hook before_stage failed in its task 'Silence the alert': 401 no" in closed["reason"]
    assert _gate.closed_gate({}, []) == {}
    assert _gate.closed_gate({}, [{**BROKEN, "stops": False}]) == {}, "it only warns"
    assert _gate.closed_gate({}, [{**BROKEN, "hook": "before_worker", "worker": "w1"}]) == {}, "that concerns w1 alone"
    budget = {"cause": "budget", "reason": "3 failed"}
    assert _gate.closed_gate(budget, [BROKEN]) == budget, "what closed it first"


def test_a_hook_before_a_worker_keeps_that_worker_from_its_update():
    of_worker = {"hook": "before_worker", "stops": True, "worker": "w2", "task": "", "reason": "no"}
    made = _gate.hook_outcome([BROKEN, of_worker], plan(), "w2")
    assert (made["outcome"], made["cause"], made["step"]) == ("failed", "hook", None)
    assert made["reason"] == "the hook before_worker at w2 failed: no"
    assert _gate.hook_outcome([BROKEN, of_worker], plan(), "w1") is None
    assert _gate.hook_outcome([{**of_worker, "stops": False}], plan(), "w2") is None


def test_the_way_back_of_one_left_behind_keeps_what_its_drain_is():
    """It takes the drain over, and a lease that ends meanwhile must not let what was never verified serve."""
    made = plan(fleet(4, w3=left("1.3.0", "1.3.0-new")), solver_max_fail_percentage=0.0)
    back = _gate.back_plan(made, {"w1": UPDATED, "w2": BAD}, "budget", "rollback")
    assert (back["order"], back["undoes"]) == (["w3", "w1"], True)
    own, other = back["workers"]["w3"], back["workers"]["w1"]
    assert (own["release"], own["steal"], own["serving"], own["on_expire"]) == ("1.2.0-old", True, False, "hold")
    assert (other["release"], other["steal"], other["serving"], other["on_expire"]) == ("1.2.0-old", False, True, None)
