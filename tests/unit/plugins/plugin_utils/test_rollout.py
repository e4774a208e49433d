# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, gate, outcome and verdict: pure functions, so every rule is tried here without Ansible."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _rollout as rollout
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = {"solver_version": "1.3.0", "solver_exclude": [], "solver_max_fail_percentage": 25.0, "window": 1}


def census(version="1.2.0", state="running", release=None, **more):
    return {"finding": "answering", "releases": {},
            "worker": {"api": {"features": ["drain.lease", "drain.persist", "probe", "handover"]},
                       "state": state, "drain": None, "tasks": {"open": 7},
                       "instance": {"version": version, "release": release or f"{version}-old"}}, **more}


def staged(version="1.3.0", at_target=False):
    return {"release": {"id": f"{version}-new", "version": version}, "at_target": at_target}


def fleet(size=4, **special):
    out = {f"w{n}": {"census": census(), "staged": staged()} for n in range(1, size + 1)}
    out.update(special)
    return out


def plan(workers=None, forks=50, **settings):
    return rollout.make_plan(workers or fleet(), {**SETTINGS, **settings}, "r1", forks)


def test_waves_go_by_name_and_window():
    made = plan(fleet(5), window=2)
    assert made["waves"] == [["w1", "w2"], ["w3", "w4"], ["w5"]]
    assert made["floor"] == 3
    assert made["workers"]["w1"]["from"] == "1.2.0"
    assert made["workers"]["w1"]["to"] == "1.3.0"


def test_workers_that_do_not_serve_go_first():
    made = plan(fleet(4, w3={"census": {"finding": "stopped", "worker": None}, "staged": staged()}))
    assert made["order"] == ["w3", "w1", "w2", "w4"]


def test_what_runs_the_release_already_is_left_alone():
    done = {"census": census("1.3.0", release="1.3.0-new"), "staged": staged(at_target=True)}
    made = plan(fleet(4, w2=done))
    assert made["workers"]["w2"]["action"] == "already"
    assert made["order"] == ["w1", "w3", "w4"]


@pytest.mark.parametrize("held", [
    {"census": census("1.3.0", state="drained", release="1.3.0-new"), "staged": staged(at_target=True)},
    {"census": census("1.2.0"), "staged": staged(at_target=True)},  # link moved, not restarted
])
def test_the_right_version_alone_is_not_enough(held):
    assert "w2" in plan(fleet(4, w2=held))["order"]


def test_a_window_beyond_the_forks_is_cut_and_said():
    made = plan(fleet(8), forks=2, window=4)
    assert made["window"] == 2
    assert "use --forks 4" in made["warnings"][0]


def test_a_bad_release_is_refused_once_for_all():
    bad = {"census": census(), "staged": {"failed": True, "msg": "Staging: no\nsuch version"}}
    made = plan({"w1": bad, "w2": dict(bad)})
    assert made["refused"] == ["w1, w2: Staging: no such version"]


@pytest.mark.parametrize(("code", "message", "settings"), [
    ("pip_failed", "no such version", "solver_version, solver_package, solver_wheelhouse"),
    ("wrong_digest", "its sha256 is", "solver_package_sha256, solver_package"),
    ("config_refused", "reading provider.api_key_file /x: denied", "solver_api_key_file, solver_worker_config"),
    ("config_refused", "tasks.nonsense is unknown", "solver_worker_config"),
])
def test_a_refusal_names_the_setting_that_mends_it(code, message, settings):
    bad = {"census": census(), "staged": {"failed": True, "msg": message, "failure": {"code": code}}}
    assert plan({"w1": bad})["refused"] == [f"w1: {message} [{settings}]"]


def test_a_worker_that_lacks_a_mandatory_feature_is_refused():
    old = census()
    old["worker"]["api"]["features"] = ["drain.lease", "probe"]
    refused = plan({"w1": {"census": old, "staged": staged()}})["refused"]
    assert refused == ["w1: the worker lacks drain.persist, which this update needs; update its software, "
                       "or name it in solver_exclude"]


def test_a_worker_that_cannot_hand_over_is_put_back_instead():
    old = census()
    old["worker"]["api"]["features"].remove("handover")
    made = plan({"w1": {"census": old, "staged": staged()}, "w2": {"census": census(), "staged": staged()}})
    assert made["workers"]["w1"]["on_drain_timeout"] == "return_to_service"
    assert made["workers"]["w2"]["on_drain_timeout"] == "handover"
    assert "w1: the worker lacks handover" in plan(
        {"w1": {"census": old, "staged": staged()}}, solver_drain_mode="handover")["refused"][0]


def test_unreachable_is_not_refused_but_spends():
    gone = {"census": {"unreachable": True, "msg": "no route"}, "staged": None}
    made = plan(fleet(4, w4=gone))
    assert made["refused"] == []
    assert rollout.gate(made, {})["open"]  # one of four is 25 %, not above 25 %
    assert not rollout.gate(plan(fleet(4, w4=gone), solver_max_fail_percentage=0.0), {})["open"]


def test_excluded_workers_are_left_alone_and_keep_the_verdict_from_completed():
    made = plan(solver_exclude=["w1"])
    outcomes = {name: {"outcome": "updated"} for name in ("w2", "w3", "w4")}
    assert made["order"] == ["w2", "w3", "w4"]
    assert rollout.verdict(made, outcomes)["verdict"] == "incomplete"


@given(st.integers(1, 60), st.integers(0, 100), st.data())
def test_the_gate_is_strictly_above_the_budget_over_the_whole_fleet(size, budget, data):
    made = plan(fleet(size), solver_max_fail_percentage=float(budget))
    bad = data.draw(st.lists(st.sampled_from(made["order"]), unique=True))
    words = st.sampled_from(["failed", "reverted", "unreachable"])
    decision = rollout.gate(made, {name: {"outcome": data.draw(words)} for name in bad})
    assert decision["open"] == (len(bad) * 100 <= budget * size)
    if budget == 0 and bad:
        assert not decision["open"]


@given(st.integers(1, 40), st.integers(1, 20))
def test_every_worker_is_in_exactly_one_wave_of_at_most_the_window(size, window):
    made = plan(fleet(size), window=window)
    assert sorted(name for wave in made["waves"] for name in wave) == sorted(made["workers"])
    assert all(len(wave) <= window for wave in made["waves"])


GOOD = {"drain": {"done": True, "open_at_drain": 12, "elapsed_s": 1.5}, "switch": {"switched": True, "restarted": True},
        "verify": {"done": True}, "resume": {"changed": True}, "soak": {}}
FAILED = {"failed": True, "msg": "it broke"}
GONE = {"unreachable": True, "msg": "no route to host"}
REVERTED = {"revert": {"changed": True}, "revert_verify": {"done": True}, "revert_resume": {"changed": True}}
HELD = {"instance": {"version": "1.3.0"}, "drain": {"version": "1.2.0"}}
PLANNED = {"from": "1.2.0", "to": "1.3.0"}


def outcome(**steps):
    made = rollout.outcome(PLANNED, {**GOOD, **steps})
    return made["outcome"], made["cause"]


def test_good_steps_are_an_update():
    assert outcome() == ("updated", None)
    assert outcome(soak={"skipped": True}) == ("updated", None)
    assert rollout.outcome(PLANNED, GOOD)["open_at_drain"] == 12


@pytest.mark.parametrize(("steps", "action", "expected"), [
    ({"drain": FAILED | {"gave_back": True}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": FAILED | {"failure": {"code": "foreign_drain"}}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": FAILED, "switch": {}, "give_back": {"changed": True}}, "resume", ("failed", "drain")),
    ({"drain": FAILED, "switch": {}, "give_back": FAILED}, "resume", ("quarantined", "drain")),
    ({"drain": GONE, "switch": {}}, "nothing", ("unreachable", "host")),
    ({"switch": FAILED | {"switched": False, "failure": {"code": "lease_lost"}}, "give_back": {"changed": True}},
     "resume",
     ("failed", "drain")),
    ({"switch": FAILED | {"switched": False}, "give_back": {"changed": True}}, "resume", ("failed", "release")),
    ({"switch": FAILED | {"switched": False}, "give_back": FAILED}, "resume", ("quarantined", "release")),
    # a module that died without a word, or one that only restarted, may have changed what runs
    ({"switch": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"switch": FAILED | {"switched": False, "restarted": True}, **REVERTED}, "revert", ("reverted", "release")),
    # nothing was switched: what is held there is not reverted for it
    ({"switch": {"switched": False, "restarted": False}, "verify": FAILED}, "nothing", ("failed", "release")),
    # the drained process is of another version than the drain's: it must not just resume
    ({"drain": FAILED | {"worker": HELD}, "switch": {}}, "nothing", ("failed", "drain")),
    ({"drain": {"done": True, "worker": HELD}, "switch": FAILED | {"switched": False}}, "nothing",
     ("failed", "release")),
    ({"verify": FAILED | {"failure": {"code": "probe_failed", "details": {"fault": "account"}}}, **REVERTED},
     "revert", ("reverted", "unknown")),
    ({"verify": FAILED | {"failure": {"code": "bad_option"}}, **REVERTED}, "revert", ("reverted", "unknown")),
    ({"switch": FAILED | {"switched": True}, **REVERTED}, "revert", ("reverted", "release")),
    ({"switch": GONE, "verify": {}}, "nothing", ("unreachable", "host")),
    ({"verify": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"verify": {"done": False}, **REVERTED}, "revert", ("reverted", "release")),
    ({"verify": FAILED, "revert": FAILED}, "revert", ("quarantined", "release")),
    ({"verify": FAILED, "revert": {"changed": True}, "revert_verify": FAILED}, "revert", ("quarantined", "release")),
    ({"verify": GONE, "resume": {}}, "nothing", ("unreachable", "host")),
    ({"resume": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"soak": FAILED, **REVERTED}, "revert", ("reverted", "release")),
    ({"drain": {}, "switch": {}}, "nothing", ("failed", "unknown")),
])
def test_failures(steps, action, expected):
    assert rollout.next_action({**GOOD, **steps}) == action
    assert outcome(**steps) == expected


STEP = st.sampled_from([{}, {"done": True}, {"done": False}, FAILED, GONE, {"skipped": True}, {"switched": True}])


@given(st.dictionaries(st.sampled_from(["drain", "switch", "verify", "resume", "soak", *rollout.REVERT_STEPS]), STEP))
def test_updated_needs_a_successful_verify_whatever_happened(steps):
    if rollout.outcome(PLANNED, steps)["outcome"] == "updated":
        assert all(rollout.step_ok(steps.get(name)) for name in ("drain", "switch", "verify", "resume"))


@given(st.dictionaries(st.sampled_from(["w1", "w2", "w3", "w4"]),
                       st.sampled_from(sorted(rollout.SPENDS | {"updated"})).map(lambda word: {"outcome": word})))
def test_completed_only_when_every_worker_is_at_the_target(outcomes):
    doc = rollout.verdict(plan(), outcomes)
    all_good = len(outcomes) == 4 and all(own["outcome"] == "updated" for own in outcomes.values())
    assert (doc["verdict"] == "completed") == all_good
    assert (not rollout.not_done(doc)) == all_good


def test_workers_lost_in_their_update_use_the_window_up():
    made = plan(fleet(10), window=1)
    lost = {"w1": {"outcome": "quarantined"}}
    assert not rollout.gate(made, lost)["open"]
    assert "whole window" in rollout.gate(made, lost)["reason"]
    assert rollout.gate(plan(fleet(10), window=2), lost)["open"]
    assert rollout.gate(made, {"w1": {"outcome": "unreachable"}})["open"]  # it was never touched
    assert not rollout.gate(made, {"w1": {"outcome": "unreachable", "step": "verify"}})["open"]


def test_a_worker_without_a_census_spends_and_one_without_a_release_is_refused():
    made = plan(fleet(4, w4={"census": None, "staged": None}))
    assert made["workers"]["w4"]["action"] == "unreachable"
    assert plan(fleet(4, w4={"census": census(), "staged": None}))["refused"] == ["w4: no release was staged for it"]


def test_the_last_worker_is_judged_too():
    outcomes = {f"w{n}": {"outcome": "updated"} for n in (1, 2, 3)} | {"w4": {"outcome": "reverted"}}
    assert rollout.verdict(plan(solver_max_fail_percentage=0.0), outcomes)["verdict"] == "aborted"
    assert rollout.verdict(plan(), outcomes)["verdict"] == "incomplete"


def test_nothing_to_do_is_completed():
    done = {"census": census("1.3.0", release="1.3.0-new"), "staged": staged(at_target=True)}
    made = plan({"w1": done, "w2": done})
    assert made["waves"] == []
    assert rollout.verdict(made, {})["verdict"] == "completed"


def test_check_mode_is_planned_and_fails_nobody():
    doc = rollout.verdict(plan(), {}, check_mode=True)
    assert doc["verdict"] == "planned"
    assert rollout.not_done(doc) == {}


def test_progress_line_says_the_place():
    made = plan(fleet(8))
    line = rollout.progress_line(made, "w3", rollout.outcome(PLANNED, GOOD))
    assert line == "w3 updated 1.2.0 -> 1.3.0 in 1.5 s, 12 tasks open when its drain began (3/8)"
    bad = rollout.outcome(PLANNED, {**GOOD, "verify": FAILED, **REVERTED})
    assert rollout.progress_line(made, "w4", bad) == "w4 REVERTED [release] verify: it broke (4/8)"


def test_status_says_mixed_versions_in_words():
    lines = rollout.fleet_lines({"w1": census(), "w2": census("1.3.0"), "w3": {"finding": "dead", "message": "gone"}})
    assert lines[-2] == ("Mixed versions: 1 on 1.2.0 (w1); 1 on 1.3.0 (w2). Run rolling_update.yml again to converge.")
    assert lines[-1] == "No answer from: w3."
