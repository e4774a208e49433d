# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns that wait for each other: what is decided of them, and any order in which they get on, fail and are ended."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import (
    _admit,
    _gate,
    _plan_lines,
    _step,
    _together,
    _turn_together,
    _verdict,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._together import (
    BACK,
    DRAINED,
    GATHERED,
    ON,
    OUT,
    PILOT,
    PLACES,
    SOAKED,
    VERIFIED,
    WAIT,
)
from rollout_kit import census, fleet, plan, record, staged
from turn_kit import GONE, World, failed, worker

WANTED = {"solver_strategy": "recreate", "solver_accept_downtime": True, "solver_order": "name"}


def recreate(workers: Any = None, **more: Any) -> dict[str, Any]:
    return plan(workers or fleet(3), **{**WANTED, **more})


def known(outcome: Any = None, **versions: str) -> dict[str, Any]:
    """Workers with records of a rollout r0 of all together: new and old serve, NEW and OLD are held."""
    made = {}
    for name, word in versions.items():
        version = {"new": "1.3.0", "old": "1.2.0"}[word.lower()]
        drain = {"owner": "r0", "version": "1.2.0"} if word.isupper() else None
        made[name] = {"staged": staged(at_target=word.lower() == "new"), "census": census(
            version, release=f"{version}-{word.lower()}", state="drained" if drain else "running", drain=drain,
            record=record(strategy="recreate", outcome=outcome))}
    return made


# -- the plan


def test_all_are_in_one_stage_and_none_may_fail():
    made = recreate(solver_max_unavailable=1, solver_max_fail_percentage=50.0)
    assert not made["refused"]
    assert [stage["workers"] for stage in made["stages"]] == [["w1", "w2", "w3"]]
    assert (made["window"], made["floor"], made["tolerated"]) == (3, 0, 0)
    assert all(own["together"] for own in made["workers"].values())
    # A pilot's restart and probe, then those of the others, and one hand-over.
    assert made["stop_s"] == 31.0
    assert made["estimate_s"] == 91
    said = "\n".join(_plan_lines.plan_lines(made))
    for words in ("nobody serves for about 31 s", "2. w1 alone is switched and verified", "3. w2, w3:"):
        assert words in said


@pytest.mark.parametrize(("more", "words"), [
    ({"solver_accept_downtime": False}, "solver_accept_downtime: true"),
    ({"forks": 2}, "--forks 3"),
    ({"solver_exclude": ["w2"]}, "w2 (excluded: named by solver_exclude)"),
    ({"workers": fleet(3, w2={"census": {"unreachable": True, "msg": "no route"}, "staged": {}})},
     "w2 (unreachable: no"),
    ({"workers": fleet(3, w2={"staged": staged(), "census": census(record=record(
        verdict="rolled_back", outcome="reverted", cause="release"))})}, "solver_force: true"),
])
def test_what_would_leave_two_versions_in_service_is_refused_with_its_remedy(more: dict[str, Any], words: str):
    refused = recreate(**more)["refused"]
    assert len(refused) == 1
    assert words in refused[0]


def test_a_worker_that_cannot_hand_over_is_refused():
    bare = census()
    bare["worker"]["api"]["features"].remove("handover")
    text, = recreate(fleet(2, w1={"census": bare, "staged": staged()}))["refused"]
    assert "the worker lacks handover" in text


def test_who_serves_the_target_already_is_taken_out_with_the_others_of_an_interrupted_rollout():
    made = recreate(known(w1="new", w2="NEW", w3="OLD"))
    assert made["continued"]
    assert made["order"] == ["w1", "w2", "w3"]
    assert made["workers"]["w1"]["action"] == "update"
    assert made["workers"]["w2"]["on_expire"] == "hold"
    assert not made["refused"]
    # All are there: nobody is stopped for nothing.
    assert recreate(known(w1="new", w2="new"))["order"] == []


def test_the_pilot_is_one_that_has_the_release_or_one_that_serves():
    idle = {"census": census(state="failed"), "staged": staged()}
    assert recreate(fleet(3, w1=idle))["order"][0] == "w2"
    assert recreate(known(w1="OLD", w2="NEW", w3="OLD"))["order"][0] == "w2"


def test_another_strategy_is_refused_until_it_is_over():
    text, = plan(known(w1="NEW", w2="OLD"))["refused"]
    assert "began with solver_strategy recreate" in text


@pytest.mark.parametrize("verdict", [None, "aborted"])
def test_a_rollout_that_left_nothing_binds_nobody(verdict: str | None):
    """Also rollback.yml, which the refusal names, has nothing to do where all went back, and writes nothing down."""
    workers = fleet(3)
    for own in workers.values():
        own["census"] = census(record=record(strategy="canary", verdict=verdict))
    again = recreate(workers)
    assert (again["refused"], again["strategy"], again["rollout_id"]) == ([], "recreate", "r0")
    # So is, where one cannot be asked, nobody knows what is there; and what is still to be decided.
    lost = {**workers, "w2": {"census": {"finding": "unreachable"}, "staged": {}}}
    assert plan(lost)["refused"][0].startswith("rollout r0 began with solver_strategy canary")
    for own in workers.values():
        own["census"]["rollout"]["rollout"]["verdict"] = "awaiting_promotion"
    assert "began with solver_strategy canary" in recreate(workers)["refused"][0]
    for own in workers.values():
        own["census"]["rollout"]["rollout"]["verdict"] = verdict
    # Bound is where one serves the release, is held for it, or has it beside itself.
    workers["w2"]["census"]["standby"] = {"finding": "answering", "worker": {
        "state": "standby", "instance": {"release": "1.3.0-new"}}}
    assert "began with solver_strategy canary" in recreate(workers)["refused"][0]
    workers["w2"]["census"] = census("1.3.0", release="1.3.0-new", record=record(strategy="canary", verdict=verdict))
    assert "began with solver_strategy canary" in recreate(workers)["refused"][0]
    workers["w2"]["census"] = census(state="drained", drain={"owner": "r0", "version": "1.2.0"},
                                     record=record(strategy="canary", verdict=verdict))
    assert "began with solver_strategy canary" in recreate(workers)["refused"][0]


@pytest.mark.parametrize(("settings", "strategy"), [(WANTED, "recreate"), ({}, "rolling")])
def test_a_rollback_goes_as_one_where_it_is_asked_to(settings: dict[str, Any], strategy: str):
    made = plan(known(w1="new", w2="new", outcome="updated"), kind="rollback", solver_version="", **settings)
    assert (made["strategy"], made["refused"]) == (strategy, [])
    assert any("go back as one" in text for text in made["warnings"]) == (strategy == "rolling")


def test_what_would_go_back_to_several_versions_is_refused():
    """Left by one that was interrupted, and another one is begun over it."""
    workers = known(w1="new", w2="NEW")
    for own in workers.values():
        own["staged"] = staged("1.4.0")
    text, = recreate(workers, solver_version="1.4.0")["refused"]
    assert "w1 to 1.3.0, w2 to 1.2.0" in text
    assert "recover.yml" in text


# -- the recovery


@pytest.mark.parametrize(("workers", "targets"), [
    ({"w1": "NEW", "w2": "OLD", "w3": "old"}, {"w1": "1.2.0", "w2": "1.2.0"}),
    ({"w1": "NEW", "w2": "NEW", "w3": "NEW"}, {"w1": "1.2.0", "w2": "1.2.0", "w3": "1.2.0"}),
    ({"w1": "new", "w2": "NEW", "w3": "NEW"}, {"w2": "1.3.0", "w3": "1.3.0"}),
    # They have not gone together: each keeps what it runs, as after any rollout.
    ({"w1": "new", "w2": "NEW", "w3": "old"}, {"w2": "1.3.0"}),
])
def test_a_recovery_brings_all_to_one_version(workers: dict[str, str], targets: dict[str, str]):
    made = plan(known(**workers), kind="recover", solver_version="")
    assert {name: made["workers"][name]["to"] for name in made["order"]} == targets
    assert (made["strategy"], made["refused"]) == ("rolling", [])
    # Those that are out anyway are not kept waiting for each other.
    assert made["window"] == max(1, len(targets))


@pytest.mark.parametrize(("serves", "held", "stays"), [
    ("old", "NEW", True), ("new", "OLD", True), ("new", "NEW", True), ("old", "OLD", False),
    ("OLD", "OLD", False)])
@pytest.mark.parametrize("kind", ["update", "rollback", "recover"])
def test_who_is_held_stays_so_where_others_serve_something_else(kind: str, serves: str, held: str, stays: bool):
    """Found by random histories: given back after a failed drain it served beside those of the other version."""
    own = plan(known(w1=serves, w2=held), kind=kind, **(WANTED if kind != "recover" else {"solver_version": ""}))
    planned = own["workers"]["w2"]
    if "w2" in own["order"] and planned["together"]:
        ends = (_step.next_action({"drain": failed("drain_timeout")}, planned=planned), planned["on_expire"])
        # Forward, where somebody has served the new release, nobody goes back any more.
        assert (ends == ("nothing", "hold")) == (stays and (kind, serves, held) != ("recover", "new", "NEW"))
    assert not own["workers"]["w1"]["stays_held"]


def test_a_record_of_all_together_leads_no_worker_that_was_rolled_since():
    """Under one id: it aborted and left nothing, and was begun again as another strategy, without w1."""
    workers = known(w1="old", w2="NEW")
    workers["w2"]["census"]["rollout"]["rollout"]["strategy"] = "rolling"
    rolled = plan(workers, kind="recover", solver_version="")["workers"]["w2"]
    assert (rolled["together"], rolled["probe"]) == (False, True)


def test_a_recovery_knows_what_has_served_and_what_may_not_go_back_alone():
    back = plan(known(w1="NEW", w2="OLD", w3="old"), kind="recover", solver_version="")["workers"]
    assert {name: back[name]["probe"] for name in ("w1", "w2")} == {"w1": False, "w2": False}
    forward = plan(known(w1="new", w2="NEW"), kind="recover", solver_version="")["workers"]
    assert (forward["w2"]["probe"], forward["w2"]["back_to"]) == (True, None)


def test_a_pause_before_it_goes_on_leaves_held_what_others_serve():
    """Alone it would go back beside those that serve the new release."""
    left = recreate(known(w1="new", w2="NEW"))
    assert _gate.roll_back(left, {}, "paused", "rollback") == []
    alone = recreate(known(w1="old", w2="NEW"))
    assert _gate.roll_back(alone, {}, "paused", "rollback") == ["w2"]


# -- the places


def at(**places: str) -> dict[str, Any]:
    state = _admit.begin(0.0)
    state["phase"] = dict.fromkeys(places, "turn")
    state["together"]["at"] = dict(places)
    return dict(state)


def test_all_wait_for_the_last_and_the_others_for_the_pilot():
    made = recreate()
    state = at(w1=VERIFIED, w2=DRAINED, w3=GATHERED)
    assert _together.way(made, state, "w1", DRAINED) == WAIT
    assert _together.waited_for(made, state, "w1", DRAINED) == ["w3"]
    assert _together.way(made, state, "w2", PILOT) == ON
    assert _together.way(made, at(w1=DRAINED, w2=DRAINED, w3=DRAINED), "w2", PILOT) == WAIT
    # Somebody has gone on from there: so does everybody.
    state["together"]["passed"] = [DRAINED]
    assert _together.way(made, state, "w1", DRAINED) == ON


def test_a_gate_that_closes_before_all_are_in_lets_nobody_begin():
    made, state = recreate(), at(w1=GATHERED)
    state["closed"] = {"cause": "paused", "reason": "lunch"}
    assert _together.way(made, state, "w1", GATHERED) == BACK
    assert _together.why_back(made, state, "w1", GATHERED)["reason"] == "lunch"
    state["together"]["passed"] = [GATHERED]
    assert _together.way(made, state, "w1", GATHERED) == ON, "too late"


def test_who_leaves_without_a_word_turns_the_others_back_but_not_once_they_serve():
    made, state = recreate(), at(w1=DRAINED, w2=DRAINED)
    state["brief"] = {"w3": {"outcome": "failed", "reason": "its hook"}}
    state["phase"]["w3"] = "left"
    assert _together.way(made, state, "w1", DRAINED) == BACK
    assert _together.why_back(made, state, "w1", DRAINED)["reason"] == "w3: its hook"
    state["together"] = {"at": {"w1": SOAKED, "w2": SOAKED}, "passed": list(PLACES[:3]), "fell": None}
    assert _together.way(made, state, "w1", SOAKED) == ON


def test_nobody_is_waited_for_on_the_way_back_before_anybody_could_serve_the_new_release():
    made, state = recreate(), at(w1=OUT, w2=DRAINED, w3=VERIFIED)
    assert _together.serve_new(made, state, "w1") == []
    state["together"]["passed"] = [VERIFIED]
    assert _together.serve_new(made, state, "w1") == ["w2", "w3"]
    state["phase"]["w3"] = "left"
    assert _together.serve_new(made, state, "w1") == ["w2"]


def test_while_the_pilot_is_tried_the_others_can_be_asked_for_a_reference_solve():
    made, state = recreate(), at(w1=DRAINED, w2=DRAINED, w3=DRAINED)
    assert _together.not_to_ask(made, state, "w1") == ["w1"]
    assert _together.not_to_ask(made, state, "w2") == ["w1", "w2", "w3"]


# -- a turn


class Beside:
    """The others: at each place the turn goes on, or they fall there. Each look at one that waits takes a second."""

    def __init__(self, *, pilot: bool = True, falls_at: str = "", waits: int = 0) -> None:
        self.is_pilot, self.falls_at, self.waits = pilot, falls_at, waits
        self.arrived: list[str] = []
        self.why: Any = None
        self.now = 0.0

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def hear(self, record: Any) -> None:
        self.heard = record

    def arrive(self, place: str) -> None:
        self.arrived.append(place)

    def way(self, place: str) -> str:
        if place == self.falls_at:
            self.why = {"worker": "w2", "reason": "w2: it broke"}
        if self.why:
            return BACK
        if self.waits:
            self.waits -= 1
            return WAIT
        return ON

    def waited_for(self, place: str) -> list[str]:
        return ["w3", "w2"]

    def all_verified(self) -> bool:
        return SOAKED in self.arrived or "resume" in self.arrived

    def fall(self, reason: str) -> None:
        self.why = self.why or {"worker": "w1", "reason": reason}

    def fell(self) -> Any:
        return self.why

    def serve_new(self) -> list[str]:
        return []


def take(world: World, beside: Beside, **settings: Any) -> Any:
    own = worker(recreate(), **_together.settings_of(settings, "recreate", 3))
    return _turn_together.TogetherTurn(own, world, beside, beside.clock).run()


WORLD: dict[str, Any] = {"renew": {"ours": True}, "hold": {"done": True, "host_clock": {"uptime_s": 5.0}}}
HELD = ["renew", "hold"]
REVERT = ["revert_drain", "revert", "revert_verify", "revert_resume"]


def test_a_good_turn_is_held_until_it_switches():
    world, beside = World(**WORLD), Beside(pilot=False)
    made = take(world, beside, solver_min_healthy_time=5.0)
    assert (made["outcome"], made["reason"]) == ("updated", "")
    assert world.calls == [
        ["renew"], ["drain"], [*HELD, "switch", "verify"], ["resume"], ["soak"], ["record"]]
    assert beside.arrived == list(PLACES)
    sent = {step["name"]: step["args"] for call in world.sent for step in call["steps"]}
    assert (sent["drain"]["mode"], sent["drain"]["grace"], "on_expire" in sent["drain"]) == ("handover", 0.0, False)
    assert sent["switch"]["on_expire"] == "hold"
    assert "hold" not in world.sent[2]["before"]
    assert world.sent[3]["before"]["hold"] == {"host_clock": {"uptime_s": 5.0}}, "its time begins here"


def test_one_that_is_lost_before_all_are_in_ends_it_with_nobody_touched():
    world, beside = World(**{**WORLD, "renew": GONE}), Beside()
    assert take(world, beside) == {}
    assert "no route to host" in beside.why["reason"]
    assert world.ran == ["renew"]


def test_a_long_wait_renews_the_drain_and_the_lock():
    world, beside = World(**WORLD), Beside(waits=500)
    assert take(world, beside, solver_drain_lease=300.0)["outcome"] == "updated"
    assert world.ran.count("renew") >= 4


def test_who_waits_too_long_turns_all_back_and_names_whom_it_waited_for():
    world, beside = World(**WORLD), Beside(waits=5000)
    assert take(world, beside, solver_progress_deadline=900.0) == {}
    assert "nothing came of w2, w3 for" in beside.why["reason"]
    assert world.ran.count("drain") == 0, "not all were in, so nothing was touched"


@pytest.mark.parametrize(("place", "ran", "record"), [
    (GATHERED, [], None),
    (DRAINED, ["drain", "give_back"], "rolled_back"),
    (PILOT, ["drain", "give_back"], "rolled_back"),
    (VERIFIED, ["drain", *HELD, "switch", "verify", *REVERT], "rolled_back"),
    (SOAKED, ["drain", *HELD, "switch", "verify", "resume", "soak", "revert_drain", *REVERT], "rolled_back"),
])
def test_where_another_one_falls_the_worker_goes_back_with_it(place: str, ran: list[str], record: str | None):
    world, beside = World(**WORLD), Beside(pilot=False, falls_at=place)
    made = take(world, beside, solver_min_healthy_time=5.0)
    assert world.ran == ["renew", *ran, *(["record"] if record else [])]
    assert made.get("outcome") == record
    if record:
        assert made["reason"] == "returned to 1.2.0 with all others; w2: it broke"
        assert made["cause"] is None
        assert world.records[0]["outcome"] == record
        assert beside.arrived[-1] == OUT
    sent = [step for call in world.sent for step in call["steps"] if step["name"] == "revert_drain"]
    assert {step["args"]["on_expire"] for step in sent} <= {"hold"}


@pytest.mark.parametrize(("step", "ran", "word"), [
    ("drain", ["drain"], "failed"), ("hold", ["drain", *HELD], "failed"),
    ("switch", ["drain", *HELD, "switch", *REVERT], "reverted"),
    ("verify", ["drain", *HELD, "switch", "verify", *REVERT], "reverted"),
    ("resume", ["drain", *HELD, "switch", "verify", "resume", "revert_drain", *REVERT], "reverted"),
    ("soak", ["drain", *HELD, "switch", "verify", "resume", "soak", "revert_drain", *REVERT], "reverted"),
])
def test_one_that_fails_turns_all_back_and_says_for_what(step: str, ran: list[str], word: str):
    answers = {**WORLD, step: failed(gave_back=True)}
    world, beside = World(**answers), Beside()
    made = take(world, beside, solver_min_healthy_time=5.0)
    assert world.ran == ["renew", *ran, "record"]
    assert made["outcome"] == word
    assert beside.why["worker"] == "w1"
    assert beside.arrived[-1] == OUT


def test_one_that_is_lost_turns_the_others_back_only_while_nobody_serves_the_new_release():
    world, beside = World(**{**WORLD, "verify": GONE}), Beside()
    assert take(world, beside)["outcome"] == "unreachable"
    assert beside.why["worker"] == "w1"
    world, beside = World(**{**WORLD, "resume": GONE}), Beside()
    beside.all_verified = lambda: True  # type: ignore[method-assign]
    made = take(world, beside)
    assert (made["outcome"], beside.why, beside.arrived[-1]) == ("unreachable", None, OUT)


def test_a_worker_that_cannot_be_brought_back_with_the_others_is_named():
    world = World(**{**WORLD, "revert_verify": failed("worker_exited")})
    made = take(world, Beside(pilot=False, falls_at=VERIFIED), solver_healthy_deadline=20.0)
    assert (made["outcome"], made["cause"]) == ("quarantined", "unknown")
    assert made["reason"].startswith("could not be returned to 1.2.0: revert verify failed")
    lost = take(World(**{**WORLD, "revert": GONE}), Beside(pilot=False, falls_at=VERIFIED))
    assert (lost["outcome"], lost["cause"]) == ("unreachable", "host")


# -- the verdict


def verdict(**words: str) -> Any:
    made = recreate()
    outcomes: dict[str, Any] = {name: {"outcome": word, "cause": "release" if word == "reverted" else None,
                                       "reason": "so"} for name, word in words.items()}
    made |= {"started_at": "2026-11-24T01:00:00Z", "ended_at": "2026-11-24T01:00:09Z"}
    return _verdict.verdict(made, outcomes, {})


@pytest.mark.parametrize(("words", "verdict_word"), [
    (("reverted", "rolled_back", "rolled_back"), "rolled_back"),
    (("failed", "rolled_back", "rolled_back"), "rolled_back"),
    (("quarantined", "rolled_back", "rolled_back"), "rollback_failed"),
    (("unreachable", "updated", "updated"), "aborted"),
    (("returned", "rolled_back", "rolled_back"), "inconclusive"),
    (("updated", "updated", "updated"), "completed"),
])
def test_the_verdict_says_that_all_went_back(words: tuple[str, ...], verdict_word: str):
    doc = verdict(**dict(zip(("w1", "w2", "w3"), words, strict=True)))
    assert doc["verdict"] == verdict_word
    if verdict_word in ("rolled_back", "aborted"):
        assert "w1 failed, and of workers that are updated together none may" in doc["reasons"][0]
