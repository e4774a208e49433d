# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker's turn, step by step: what follows each failure, what is called how often, and what is written down."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate, _turn
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import fleet, plan
from turn_kit import ANSWERS, GONE, OWN, SLOT, World, failed, status, worker

REVERT = ["revert_drain", "revert", "revert_verify", "revert_resume"]
FORWARD = ["drain", "switch", "verify", "resume"]


def take(world: World, **settings: Any) -> dict[str, Any]:
    return _turn.Turn(worker(**settings), world).run()


def events(world: World, name: str) -> list[dict[str, Any]]:
    return [facts for event, facts in world.events if event == name]


def recorded(world: World) -> list[dict[str, Any]]:
    """What the worker's record was told."""
    return [{name: args.get(name) for name in ("outcome", "cause", "outcome_reason")} for args in world.records]


def test_a_good_turn_is_one_call():
    world = World()
    made = take(world)
    assert (made["outcome"], made["cause"], made["reason"]) == ("updated", None, "")
    assert world.calls == [[*FORWARD, "record"]]
    assert recorded(world) == [{"outcome": "updated", "cause": None, "outcome_reason": ""}]
    assert made["open_at_drain"] == 3
    assert made["totals_before"] == {"accepted": 1}
    assert made["timings"] == {"drain": 1.5, "switch": 0.5, "verify": 2.0}
    assert world.moves == []


def test_a_soak_is_a_call_of_its_own_and_the_worker_leaves_the_window_before_it():
    world = World(soak=[{"done": False, "worker": status()}, {"done": False}, ANSWERS["soak"]])
    assert take(world, solver_min_healthy_time=60.0)["outcome"] == "updated"
    assert world.calls == [FORWARD, ["soak", "record"], ["soak", "record"], ["soak", "record"]]
    assert world.moves == ["serves 1.3.0"]


def test_a_long_drain_tells_how_far_it_is_and_goes_on_with_the_same_program():
    world = World(drain=[{"done": False, "remaining": {"open": left}, "elapsed_s": 10.0} for left in (9, 4)]
                  + [ANSWERS["drain"]])
    assert take(world)["outcome"] == "updated"
    assert world.calls == [[*FORWARD, "record"]] * 3
    assert [(own["step"], own["remaining"], own["ok"]) for own in events(world, "progress")] == [
        ("drain", {"open": 9}, False), ("drain", {"open": 4}, False)]
    assert [(own["step"], own["ok"]) for own in events(world, "step_ended")] == [
        (name, True) for name in [*FORWARD, "record"]]
    assert events(world, "step_ended")[0]["open_at_drain"] == 3


def test_a_later_call_is_told_what_the_earlier_ones_found():
    world = World(verify=[{"done": False}, ANSWERS["verify"]])
    take(world)
    assert world.calls == [[*FORWARD, "record"], ["verify", "resume", "record"]]
    assert world.sent[0]["before"] == {}
    assert world.sent[1]["before"]["switch"] == {
        "restarted": True, "boot_id_before": "a", "boot_id": "b", "totals_before": {"accepted": 1}}
    assert world.sent[1]["before"]["drain"] == {"host_clock": {"uptime_s": 1.0}}


def test_a_step_that_is_never_done_has_had_its_time():
    world = World(verify={"done": False})
    made = take(world, solver_healthy_deadline=40.0)
    assert made["reason"].startswith("verify: not finished in time")
    assert sum(1 for name in world.ran if name == "verify") == 5
    assert world.ran[-5:] == [*REVERT, "record"]
    assert (made["outcome"], made["cause"]) == ("reverted", "release")


def test_a_drain_that_fails_and_gives_back_is_all():
    world = World(drain=failed("drain_timeout", gave_back=True))
    made = take(world)
    assert (made["outcome"], made["cause"], made["step"]) == ("failed", "drain", "drain")
    assert world.ran == ["drain", "record"]
    assert recorded(world) == [{"outcome": "failed", "cause": "drain", "outcome_reason": made["reason"]}]
    assert events(world, "follow_up") == [{"action": "nothing"}]


def test_a_drain_that_fails_and_holds_is_given_back():
    world = World(drain=failed("hung"))
    assert take(world)["outcome"] == "failed"
    assert world.ran == ["drain", "give_back", "record"]
    world = World(drain=failed("hung"), give_back=failed("hung"))
    assert take(world)["outcome"] == "quarantined"
    for made in (take(World(drain=failed("hung"))), take(world)):
        assert made["reason"].endswith("; rollback.yml with solver_only and its name ends what hangs by force")
    assert "by force" not in take(World(drain=failed("foreign_drain")))["reason"]


def test_a_switch_that_touched_nothing_is_no_revert():
    world = World(switch=failed("no_space", switched=False))
    made = take(world)
    assert (made["outcome"], made["cause"]) == ("failed", "host")
    assert world.ran == ["drain", "switch", "give_back", "record"]


def test_a_switch_that_touched_something_goes_back():
    world = World(switch=failed("service_failed", switched=True))
    made = take(world)
    assert (made["outcome"], made["cause"]) == ("reverted", "release")
    assert world.calls[1] == REVERT
    assert world.ran == ["drain", "switch", *REVERT, "record"]


BAD_PROBE = failed("probe_failed", details={"fault": "worker", "errors": [{"class": "worker", "code": "X"}]})
BUSY = failed("probe_failed", details={"fault": "provider", "errors": [{"class": "provider", "code": "BUSY"}]})
TWO = [{"host": "w4", "control_socket": "/w4"}, {"host": "w3", "control_socket": "/w3"}]
PASSED = {"done": True, "worker": status("1.2.0")}


def test_a_failed_probe_without_a_reference_is_judged_by_its_own_word():
    world = World(verify=BAD_PROBE, at_provider=GONE)
    assert (take(world)["outcome"], world.ran[3:]) == ("reverted", [*REVERT, "record"])
    assert [host for host, _args in world.asked] == [""], "the provider, with the worker's key"
    world = World(verify=BUSY, at_provider=GONE)
    assert take(world)["outcome"] == "returned"


def test_a_reference_solve_elsewhere_decides_whose_fault_it_is():
    world = World(verify=BUSY, references=TWO, reference=PASSED)
    made = take(world)
    assert (made["outcome"], made["cause"]) == ("reverted", "release")
    assert "the same solve passed at another worker" in made["reason"]
    assert [(host, args["control_socket"]) for host, args in world.asked] == [("w4", "/w4")]
    assert events(world, "reference_solve") == [{"at": "w4", "ok": True}]
    world = World(verify=BUSY, references=TWO, reference={**BUSY, "worker": status("1.2.0")})
    assert take(world)["outcome"] == "returned"
    assert len(world.asked) == 1


def test_two_reference_workers_are_asked_at_most_and_then_the_provider():
    three = [*TWO, {"host": "w2", "control_socket": "/w2"}]
    world = World(verify=BUSY, references=three, reference=GONE, at_provider=PASSED)
    made = take(world)
    assert [host for host, _args in world.asked] == ["w4", "w3", ""]
    assert made["outcome"] == "reverted"
    assert "the provider itself" in made["reason"]


def test_the_version_in_doubt_does_not_speak_for_itself():
    """It fails on one that was updated before as well; only the provider can tell."""
    drained = {**ANSWERS["drain"], "worker": status("1.2.0")}
    world = World(drain=drained, verify={**BUSY, "worker": status()}, references=TWO,
                  reference={**BUSY, "worker": status()}, at_provider=PASSED)
    assert take(world)["outcome"] == "reverted"
    assert [host for host, _args in world.asked] == ["w4", ""]


def test_those_in_flight_beside_it_show_that_the_provider_is_down():
    down = failed("probe_failed", details={"fault": "provider", "errors": [
        {"class": "provider", "code": "ERROR_NO_SLOT_AVAILABLE"}] * 2})
    world = World(verify=down, siblings=(down,), references=TWO)
    assert take(world)["outcome"] == "returned"
    assert world.asked == [], "nobody pays for a solve more"
    assert world.probes[1] is not None, "its own is told to the others"


def test_a_verification_is_told_to_the_others_when_it_is_over():
    world = World(verify=[{"done": False}, ANSWERS["verify"]])
    take(world)
    assert [own.get("done") for own in world.probes] == [True]


def test_a_resume_that_fails_goes_back():
    world = World(resume=failed("worker_failed"))
    assert take(world)["outcome"] == "reverted"
    assert world.moves == [], "it never served"
    world = World(resume=failed("foreign_drain"))
    assert (take(world)["outcome"], world.ran[4:]) == ("failed", ["record"])


def test_a_soak_that_fails_waits_for_a_place_in_the_window_and_goes_back():
    dead = failed("worker_exited", worker=status(state="failed"))
    world = World(soak=dead)
    made = take(world, solver_min_healthy_time=60.0)
    assert (made["outcome"], made["step"]) == ("reverted", "soak")
    assert world.moves == ["serves 1.3.0", "leaves failed"]
    assert recorded(world)[-1]["outcome"] == "reverted"
    taken = failed("unexpected_state", worker=status(drain={"owner": "somebody"}))
    world = World(soak=taken)
    assert take(world, solver_min_healthy_time=60.0)["outcome"] == "failed"
    assert world.moves == ["serves 1.3.0"], "it is somebody else's now"


def test_a_revert_goes_on_though_its_drain_failed():
    """A hung process cannot be drained; that is no reason to leave it with a release that failed."""
    world = World(verify=failed("hung"), revert_drain=failed("hung"))
    assert take(world)["outcome"] == "reverted"
    assert world.calls[1] == REVERT
    world = World(verify=failed("hung"), revert_drain={"done": False})
    assert take(world)["outcome"] == "reverted"
    assert world.calls[1:] == [REVERT, ["record"]], "what goes on is not asked again"


def test_a_revert_that_fails_is_quarantine():
    world = World(verify=failed("hung"), revert=failed("no_space"))
    made = take(world)
    assert made["outcome"] == "quarantined"
    assert "revert failed: no: no_space" in made["reason"]
    assert recorded(world)[-1]["outcome"] == "quarantined"


def test_one_that_comes_back_slowly_after_its_revert_is_waited_for():
    dying = failed("worker_exited")
    world = World(verify=failed("hung"), revert_verify=[dying, dying, ANSWERS["revert_verify"]])
    assert take(world)["outcome"] == "reverted"
    assert world.moves == ["slept 2", "slept 2"]
    assert world.calls[1:] == [REVERT, *[["revert_verify", "revert_resume"]] * 2, ["record"]]


def test_and_not_for_ever():
    world = World(verify=failed("hung"), revert_verify=failed("worker_exited"))
    assert take(world, solver_healthy_deadline=30.0)["outcome"] == "quarantined"
    assert world.ran.count("revert_verify") == 4
    assert "revert_resume" not in world.ran


def test_a_revert_that_lost_its_lease_is_tried_once_more_from_its_drain():
    world = World(verify=failed("hung"), revert=[failed("lease_lost", switched=False), ANSWERS["revert"]])
    assert take(world)["outcome"] == "reverted"
    assert world.calls[1:] == [REVERT, REVERT, ["record"]]
    assert "revert_drain" not in world.sent[2]["before"], "what is behind it is forgotten"
    world = World(verify=failed("hung"), revert=failed("lease_lost", switched=False))
    assert take(world)["outcome"] == "quarantined"
    assert world.ran.count("revert") == 2


@pytest.mark.parametrize("soak", [0.0, 60.0])
@pytest.mark.parametrize("step", [*FORWARD, "soak"])
def test_one_that_is_lost_on_the_way_is_left_to_its_lease(step, soak):
    if step == "soak" and not soak:
        return
    world = World(**{step: GONE})
    turn = _turn.Turn(worker(solver_min_healthy_time=soak), world)
    made = turn.run()
    assert (made["outcome"], made["cause"]) == ("unreachable", "host")
    assert world.ran[-1] == step, "nobody touches it any more"
    assert recorded(world) == []
    assert made["step"]
    assert _gate.may_be_out(made)
    assert turn.last_answer() == {"unreachable": True}


@pytest.mark.parametrize("step", REVERT)
def test_one_that_is_lost_on_its_way_back_is_no_quarantine(step):
    world = World(verify=failed("hung"), **{step: GONE})
    made = take(world)
    assert made["outcome"] == "unreachable"
    assert world.ran[-1] == step
    assert recorded(world) == []


@pytest.mark.parametrize("answer", [
    {"failed": True, "msg": "bad option", "failure": {"code": "bad_option"}},  # the call itself failed, no step ran
    {"done_steps": {}},
    {"done_steps": {"verify": {"done": True}}},  # of a step that is not the next
    {"changed": False},
])
def test_a_call_that_says_nothing_of_its_step_is_a_failure_of_that_step(answer, monkeypatch):
    world = World()
    calls: list[Any] = []

    def call(_module, args, _limit, host=""):
        calls.append([step["name"] for step in args["steps"]])
        assert len(calls) < 10, "for ever"
        return answer

    monkeypatch.setattr(world, "call", call)
    made = take(world)
    assert made["outcome"] == "quarantined", "its drain may hold, and could not be given back"
    assert calls == [[*FORWARD, "record"], ["give_back"], ["record"]]


def test_what_has_no_result_never_counts_as_done():
    for step in ("drain", "switch", "verify", "resume"):
        world = World(**{step: {}})
        made = take(world)
        assert made["outcome"] != "updated", step
        assert made["outcome"] in ("failed", "reverted", "quarantined"), step


@pytest.mark.parametrize("step", FORWARD)
def test_a_fenced_run_writes_nothing_down(step):
    world = World(**{step: failed("fenced")})
    made = take(world)
    assert (made["outcome"], made["cause"]) == ("failed", "unknown")
    assert world.ran[-1] == step
    assert recorded(world) == []


def test_nothing_is_begun_when_the_controller_is_gone():
    world = World()
    world.lives = False
    with pytest.raises(_turn.GoneError):
        take(world)
    assert world.calls == []


@pytest.mark.parametrize(("answers", "step", "ran"), [
    ({"drain": [{"done": False}]}, "drain", ["drain"]),
    ({"verify": [BAD_PROBE]}, "verify", ["drain", "switch", "verify"]),  # before the reference solve
    ({"switch": [failed("service_failed", switched=True)]}, "switch", ["drain", "switch"]),  # before the revert
    ({"drain": [failed("drain_timeout", gave_back=True)]}, "drain", ["drain"]),  # before the record
])
def test_nothing_more_is_begun_when_the_controller_is_gone_in_between(answers, step, ran):
    world = World(references=TWO, **answers)

    def last() -> Any:
        world.lives = False
        return answers[step][0]

    world.answers[step] = [last]
    with pytest.raises(_turn.GoneError):
        take(world)
    assert world.ran == ran
    assert world.asked == []


def going_back():
    made = plan(fleet(4), solver_max_fail_percentage=0.0)
    outcomes = {"w1": {"outcome": "updated"}, "w2": {"outcome": "reverted", "cause": "release"}}
    return _gate.back_plan(made, outcomes, "budget", "rollback")


def test_on_the_way_back_nothing_is_written_over_what_became_of_it():
    """A later run is told what became of a worker, but not that it went back: the rollout goes on from there."""
    world = World()
    made = _turn.Turn(worker(going_back(), solver_min_healthy_time=60.0), world).run()
    assert made["outcome"] == "updated"
    assert world.calls == [FORWARD]
    world = World(verify=failed("hung"))
    made = _turn.Turn(worker(going_back()), world).run()
    assert made["outcome"] == "quarantined", "a rollback never leads to another"
    assert (world.ran, recorded(world)) == (["drain", "switch", "verify"], [])


def test_a_record_that_cannot_be_written_changes_nothing_else():
    world = World(record=failed("lock_lost"))
    assert take(world)["outcome"] == "updated"
    assert world.ran.count("record") == 1
    world = World(verify=failed("hung"), record=GONE)
    assert take(world)["outcome"] == "reverted"


def test_the_last_that_the_worker_said_of_itself_is_known():
    world = World(verify=failed("hung"))
    turn = _turn.Turn(worker(), world)
    assert turn.last_answer() == {}, "it was not asked"
    turn.run()
    assert turn.last_answer() == {"census": {"worker": status("1.2.0")}}


ANSWER = st.sampled_from(["good", "late", "failed", "gone", "mute", "fenced", "lease_lost", "untouched"])


def answer(step: str, what: str) -> Any:
    return {"good": ANSWERS[step], "late": {"done": False}, "failed": failed(), "gone": GONE, "mute": None,
            "fenced": failed("fenced"), "lease_lost": failed("lease_lost", switched=False),
            "untouched": failed("no_space", switched=False)}[what]


@given(st.dictionaries(st.sampled_from(sorted(ANSWERS)), st.lists(ANSWER, min_size=1, max_size=3)),
       st.sampled_from([0.0, 60.0]))
def test_every_turn_ends_and_updated_means_verified(script, soak):
    made = {step: [answer(step, what) for what in whats] for step, whats in script.items()}
    world = World(**made)
    turn = _turn.Turn(worker(solver_min_healthy_time=soak, solver_healthy_deadline=30.0, solver_drain_timeout=30.0),
                      world)
    outcome = turn.run()
    assert outcome["outcome"] in {*_gate.GOOD, *_gate.SPENDS, "returned"}
    assert len(world.calls) < 40
    if outcome["outcome"] == "updated":
        assert all(turn.steps[name].get("done") is True for name in ("drain", "switch", "verify", "resume"))
    else:
        assert outcome["reason"]
        assert outcome["cause"]
        assert outcome["step"]
    follow_up = [own["action"] for own in events(world, "follow_up")]
    assert len(follow_up) == (0 if outcome["outcome"] == "updated" else 1)
    if follow_up == ["nothing"]:
        assert not {*REVERT, "give_back"} & set(world.ran)
    # Whoever serves again leaves the window first, and waits for a place before it is touched again.
    if "leaves" in " ".join(world.moves):
        assert world.moves[0].startswith("serves")


def test_steps_that_one_call_told_say_how_long_ago_each_ended():
    took = {"drain": 1.5, "switch": 0.5, "verify": 2.0}
    world = World(**{name: {**ANSWERS[name], "took_s": seconds} for name, seconds in took.items()})
    take(world)
    told = {own["step"]: (own.get("took_s"), own.get("ago_s")) for own in events(world, "step_ended")}
    assert told == {"drain": (1.5, 2.5), "switch": (0.5, 2.0), "verify": (2.0, None), "resume": (None, None),
                    "record": (None, None)}


# -- by a standby

RAISE = ["raise", "verify"]
TAKE_OVER = [*RAISE, "switch", "serve"]


def beside(world: World, **settings: Any) -> _turn.Turn:
    made = worker(planned={"switch": "standby"}, **settings)
    return _turn.Turn(dataclasses.replace(made, own={**OWN, **SLOT}), world)


def test_a_standby_is_raised_and_verified_while_the_worker_serves():
    world = World()
    assert beside(world).stand_by() is None
    assert world.calls == [RAISE]
    up, verify = world.sent[0]["steps"]
    assert (up["args"]["state"], up["args"]["release"]) == ("standby", "1.3.0-new")
    assert (verify["args"]["control_socket"], verify["args"]["expect_state"]) == ("/run/w1-standby.sock", ["standby"])
    assert (verify["args"]["service"]["name"], verify["args"]["service"]["standby"]) == ("w1-standby", None)
    assert world.records == []


def test_it_takes_over_leaves_the_window_and_comes_home():
    world = World()
    made = beside(world, solver_min_healthy_time=60.0).run()
    assert (made["outcome"], made["reason"]) == ("updated", "")
    assert world.calls == [TAKE_OVER, ["settle", "soak", "record"]]
    assert world.sent[0]["steps"][2]["args"]["switch"] == "standby"
    assert world.moves == ["serves 1.3.0"]
    assert world.sent[1]["before"]["serve"] == {"host_clock": {"uptime_s": 9.0}}


def test_one_that_cannot_come_home_serves_where_it_is():
    world = World(settle=failed("cannot_start"))
    assert beside(world).run()["outcome"] == "updated"
    assert world.calls == [TAKE_OVER, ["settle", "record"]]


@pytest.mark.parametrize(("answers", "outcome", "cause", "step"), [
    ({"raise": failed("not_running")}, "reverted", "release", "raise"),
    ({"raise": failed("cannot_start")}, "failed", "host", "raise"),
    ({"verify": failed("worker_exited")}, "reverted", "release", "verify"),
    ({"verify": failed("probe_failed", details={"fault": "provider"})}, "returned", "unknown", "verify"),
    ({"switch": failed("worker_failed", switched=False)}, "reverted", "release", "switch"),
    ({"switch": failed("foreign_drain", switched=False)}, "failed", "drain", "switch"),
])
def test_what_fails_beside_the_worker_is_dropped_and_nothing_else(answers, outcome, cause, step):
    world = World(references=[{"host": "w2", "control_socket": "/s"}], reference=failed(
        "probe_failed", details={"fault": "provider"}), **answers)
    turn = beside(world)
    made = turn.run() if step == "switch" else turn.stand_by()
    assert (made["outcome"], made["cause"], made["step"]) == (outcome, cause, step)
    assert world.ran[-2:] == ["drop", "record"]
    assert not any(name.startswith("revert") for name in world.ran)
    assert world.moves == []


@pytest.mark.parametrize(("answers", "step"), [
    ({"raise": failed("not_running")}, "raise"), ({"verify": failed("worker_exited")}, "verify"),
    ({"switch": failed("worker_failed", switched=False)}, "switch")])
def test_a_host_that_shuts_down_ends_the_standby_first_and_no_release_is_to_blame(answers, step):
    world = World(drop=GONE, **answers)
    turn = beside(world)
    made = turn.run() if step == "switch" else turn.stand_by()
    assert (made["outcome"], made["cause"], made["step"]) == ("unreachable", "host", step)
    assert "drop failed: no route to host" in made["reason"]
    assert world.ran[-1] == "drop", "nor is anything asked of it after that"


@pytest.mark.parametrize("step", ["serve", "soak"])
def test_what_fails_after_the_take_over_goes_back_by_a_restart(step):
    world = World(**{step: failed()})
    made = beside(world, solver_min_healthy_time=60.0).run()
    assert (made["outcome"], made["cause"], made["step"]) == ("reverted", "release", step)
    assert world.ran[-5:] == [*REVERT, "record"]


def test_a_host_that_is_lost_after_its_worker_took_over_is_lost():
    made = beside(World(settle=GONE), solver_min_healthy_time=60.0).run()
    assert (made["outcome"], made["cause"], made["step"]) == ("unreachable", "host", "settle")


def test_a_lost_host_is_left_to_the_standby_s_lease():
    world = World(**{"raise": GONE})
    assert beside(world).stand_by()["outcome"] == "unreachable"
    assert world.ran == ["raise"]


def test_where_nobody_else_can_be_asked_what_serves_beside_the_standby_is():
    world = World(verify=failed("probe_failed"), reference={"done": True}, at_provider={"done": True, "worker": status(
        "1.2.0")})
    made = beside(world).stand_by()
    assert [args["control_socket"] for _host, args in world.asked][:1] == ["/run/w1.sock"]
    assert (made["outcome"], made["cause"]) == ("reverted", "release")


@pytest.mark.parametrize(("answers", "outcome", "step", "ran"), [
    ({}, "updated", None, ["drop", "settle", "record"]),
    ({"settle": failed("stop_timeout")}, "failed", "settle", ["drop", "settle"]),
    ({"drop": failed("stop_timeout")}, "failed", "drop", ["drop", "settle"]),
    ({"drop": GONE}, "unreachable", "drop", ["drop"]),
])
def test_what_was_left_beside_a_worker_that_serves_is_taken_away(answers, outcome, step, ran):
    world = World(**answers)
    made = worker(planned={"switch": "tidy"})
    ended = _turn.Turn(dataclasses.replace(made, own={**OWN, **SLOT}), world).run()
    assert (ended["outcome"], ended["step"], world.ran) == (outcome, step, ran)
    assert ended["reason"].startswith(f"{step}: " if step else "")
    assert world.moves == []


def test_what_it_came_from_stands_by_for_as_long_as_it_is_kept():
    world = World()
    made = worker(planned={"switch": "standby"})
    own = dataclasses.replace(made, own={**OWN, **SLOT}, plan={**made.plan, "blue_keep": 600.0})
    assert _turn.Turn(own, world).run()["outcome"] == "updated"
    keep = world.sent[1]["steps"][-1]
    assert (keep["name"], keep["args"]["release"], keep["args"]["lease"]) == ("keep", "1.2.0-old", 600.0)
    assert world.ran[-2:] == ["record", "keep"]
