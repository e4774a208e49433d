# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs as data: which steps, and that each is something that its module takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.module_utils._carried import carried
from ansible_collections.solver.fleet.plugins.module_utils._job_steps import KINDS, validated
from ansible_collections.solver.fleet.plugins.module_utils._wait import SLICE_S
from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _gate, _program
from rollout_kit import census, fleet, plan, record, staged
from turn_kit import ANSWERS, OWN, SLOT, worker

UPDATED = {"w1": {"outcome": "updated"}, "w2": {"outcome": "reverted", "cause": "release"}}
LEFT = {"owner": "r0", "expired": False, "version": "1.2.0"}


def names(program: list[_program.Step]) -> list[str]:
    return [step.name for step in program]


def everything(one: _program.Worker) -> list[_program.Step]:
    bad = _program.record_outcome(one, {"outcome": "reverted", "cause": "release", "reason": "no"})
    forward = [*_program.forward(one), *_program.soak_and_record(one)]
    return [*forward, *_program.revert(one), *_program.resume_again(one), bad]


def going_back() -> _program.Worker:
    made = plan(fleet(4), solver_max_fail_percentage=0.0)
    return worker(_gate.back_plan(made, UPDATED, "budget", "rollback"))


def recovering() -> _program.Worker:
    """Of a dead run that had switched it."""
    held = census("1.3.0", "drained", "1.3.0-new", LEFT, record("r0"))
    made = plan({"w1": {"census": held, "staged": None}, "w2": {"census": census(), "staged": None}}, kind="recover",
                solver_version="")
    assert made["order"] == ["w1"]
    return worker(made, solver_min_healthy_time=60.0)


def continuing() -> _program.Worker:
    """Another run had drained it, and died."""
    held = census("1.2.0", "drained", "1.2.0-old", LEFT, record("r0"))
    return worker(plan(fleet(2, w1={"census": held, "staged": staged()})))


WORKERS = [
    worker, going_back, recovering, continuing, lambda: worker(solver_min_healthy_time=60.0),
    lambda: worker(solver_drain_mode="handover", solver_reason="tonight", solver_on_drain_timeout="force",
                   solver_accept_loss=True, solver_probe_task={"method": "userrecaptcha"}, solver_probe_expect="x"),
]


@pytest.mark.parametrize("make", WORKERS)
def test_each_step_is_one_that_its_module_takes(make):
    for step in everything(make()):
        given = {"name": step.name, "module": step.module, "args": step.args, "goes_on": step.goes_on}
        validated(given, {})
        validated(given, carried(step.name, ANSWERS))
        assert step.name in _entry.STEP_NAMES, "its result would be dropped where it is read"


@pytest.mark.parametrize("make", WORKERS)
def test_a_reference_solve_is_one_that_solve_check_takes(make):
    one = make()
    for args in (_program.reference(one, "/run/w4.sock"), _program.without_worker(one)):
        validated({"name": "x", "module": "solve_check", "args": args, "goes_on": False}, {})
    assert _program.reference(one, "/run/w4.sock")["control_socket"] == "/run/w4.sock"
    assert "control_socket" not in _program.without_worker(one)


def test_an_update_goes_forward_to_serving_and_settles_with_a_soak_and_the_record():
    assert names(_program.forward(worker())) == ["drain", "switch", "verify", "resume"]
    assert names(_program.soak_and_record(worker())) == ["record"]
    assert names(_program.soak_and_record(worker(solver_min_healthy_time=60.0))) == ["soak", "record"]


def test_going_back_and_recovering_do_not_soak_and_only_the_rollout_itself_is_recorded():
    """One that goes back has served with that release before."""
    back = worker(going_back().plan, solver_min_healthy_time=60.0)
    assert back.soak_s == 0
    assert names(_program.soak_and_record(back)) == []
    verify = _program.forward(back)[2].args
    assert (verify["checks"], verify["expect_release"]) == (["worker"], "1.2.0-old")
    assert recovering().soak_s == 0
    assert names(_program.soak_and_record(recovering())) == ["record"]


def args_of(one: _program.Worker, name: str) -> dict[str, Any]:
    return next(step.args for step in everything(one) if step.name == name)


def test_a_drain_takes_over_what_a_dead_run_left_and_keeps_what_its_lease_leads_to():
    drain = args_of(recovering(), "drain")
    assert (drain["owner"], drain["steal"], drain["on_expire"], drain["absent_ok"]) == ("r0", True, "hold", True)
    drain = args_of(worker(), "drain")
    assert (drain["owner"], drain["steal"], drain["absent_ok"]) == ("r1", False, False)
    assert "on_expire" not in drain
    assert "hung_ok" not in drain


def test_what_hangs_is_given_up_with_its_loss_and_nothing_else_is():
    drain = args_of(worker(planned={"forced": True}), "drain")
    assert (drain["hung_ok"], drain["accept_loss"]) == (True, True)


def test_what_touches_a_worker_is_fenced():
    for step in everything(worker()):
        if step.module != "solve_check":
            assert step.args["run_id"] == "run1", step.name
            assert step.args["worker_dir"] == OWN["worker_dir"], step.name


def test_a_switch_leads_to_the_release_and_a_revert_to_where_it_came_from():
    assert args_of(worker(), "switch")["release"] == "1.3.0-new"
    assert args_of(worker(), "revert")["release"] == "1.2.0-old"
    # The link to the previous release may lead to what was never verified.
    same = worker(planned={"back_to": "1.3.0-new", "from_release": "1.1.0-bad"})
    assert args_of(same, "revert")["release"] == "1.3.0-new"
    assert "previous" not in args_of(same, "revert")
    assert args_of(worker(planned={"back_to": None, "from_release": None}), "revert")["previous"] is True


def test_what_is_not_set_is_the_modules_default():
    assert not [step.name for make in WORKERS for step in everything(make()) if None in step.args.values()]


def test_a_request_is_of_this_run_and_of_this_worker():
    """Else the worker would answer with what it solved for an earlier one."""
    assert args_of(worker(), "verify")["request_id"] == "r1-run1-w1"
    assert "request_id" not in _program.reference(worker(), "/x")


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1), (0.1, 2), (10.0, 2), (300.0, 31)])
def test_a_wait_has_calls_for_all_of_its_time(seconds, calls):
    assert _program.tries_for(seconds) == calls
    assert _program.CALL_SLICE_S * (calls - 1) >= seconds


def test_a_call_outlasts_all_that_it_may_wait_for():
    one = worker()
    forward = _program.forward(one)
    assert _program.CALL_SLICE_S <= SLICE_S, "else the host refuses it"
    assert _program.limit_of(forward, 5.0) == 60.0 + 20.0 + 10.0 + 180.0
    assert _program.limit_of(forward[2:], 5.0) == 90.0
    assert _program.limit_of(_program.revert(one), 5.0) == 60.0 + 20.0 + 10.0 + 30.0 + 180.0


def test_a_service_that_takes_long_to_stop_is_no_lost_host():
    """Its own time-out is what the message of a stop that came too late tells to raise."""
    one = worker()
    slow = dataclasses.replace(one, own={**one.own, "service": {**one.own["service"], "timeout": 300.0}})
    for program in (_program.forward, _program.revert, _program.dropped):
        assert _program.limit_of(program(slow), 5.0) == _program.limit_of(program(one), 5.0) + 240.0


def test_a_process_that_takes_long_to_start_may_stand_by():
    one = worker(planned={"switch": "standby"}, solver_healthy_deadline=700.0)
    slotted = dataclasses.replace(one, own={**OWN, **SLOT}, plan={**one.plan, "blue_keep": 600.0})
    steps = {step.name: step for step in _program.raised(slotted) + _program.soak_and_record(slotted)}
    for name in ("raise", "settle", "keep"):
        assert steps[name].args["restart_timeout"] == 700.0
        assert _program.limit_of([steps[name]], 5.0) > 60.0 + 60.0 + 700.0


def test_a_step_waits_at_least_as_long_as_its_own_time():
    for step in everything(worker(solver_min_healthy_time=60.0)):
        if KINDS[step.module].waits(step.args | {"state": step.args.get("state")}) and not step.goes_on:
            own = step.args.get("soak") or step.args.get("deadline") or step.args.get("timeout")
            assert step.tries * _program.CALL_SLICE_S >= own, step.name


def test_the_reason_of_a_drain_is_the_operators_or_says_what_goes_on():
    assert args_of(worker(), "drain")["reason"] == "update to 1.3.0"
    assert args_of(worker(solver_reason="tonight"), "drain")["reason"] == "tonight"
