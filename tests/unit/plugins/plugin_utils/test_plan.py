# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: order, stages, what is refused and why, whose rollout it is."""

from __future__ import annotations

import entry_kit as kit
import pytest
from ansible_collections.solver.fleet.plugins.filter.rollout import address_kept
from ansible_collections.solver.fleet.plugins.module_utils._release import data_address
from ansible_collections.solver.fleet.plugins.plugin_utils import _plan, _plan_lines, _plan_locks, _toml
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import census, fleet, lock, plan, record, staged, updated


def stages(made):
    return [stage["workers"] for stage in made["stages"]]


def slow(p99, p50=30.0):
    seen = census()
    seen["worker"]["solve_times"] = {"count": 500, "p50_s": p50, "p99_s": p99}
    return {"census": seen, "staged": staged()}


def test_all_are_one_stage_by_name_with_the_window():
    made = plan(fleet(11), window=2)
    assert made["stages"] == [{"workers": [f"w{number}" for number in range(1, 12)], "there": [], "window": 2,
                               "tolerated": 2, "after": "nothing"}]
    assert made["order"] == made["stages"][0]["workers"]
    assert made["floor"] == 9
    assert made["workers"]["w1"]["from"] == "1.2.0"
    assert made["workers"]["w1"]["to"] == "1.3.0"
    assert not made["way_back"]


def test_waves_are_stages_of_the_windows_size():
    made = plan(fleet(5), window=2, solver_window="waves")
    assert stages(made) == [["w1", "w2"], ["w3", "w4"], ["w5"]]


@pytest.mark.parametrize(("asked", "window", "expected"), [
    ([1, "20%", "100%"], "sliding", [1, 2, 7]),
    ([1, "20%", "100%"], "waves", [1, 2, 3, 3, 1]),
    (["50%"], "sliding", [5, 5]),
])
def test_stages_grow_as_they_are_asked_for(asked, window, expected):
    made = plan(fleet(10), window=3, solver_stages=asked, solver_window=window)
    assert [len(one) for one in stages(made)] == expected
    assert [name for one in stages(made) for name in one] == made["order"]
    assert {stage["window"] for stage in made["stages"]} == {3}


def test_the_longest_drain_goes_first_unless_names_are_asked_for():
    workers = fleet(4, w2=slow(80.0), w3=slow(120.0))
    assert plan(workers)["order"] == ["w3", "w2", "w1", "w4"]
    assert plan(workers, solver_order="name")["order"] == ["w1", "w2", "w3", "w4"]
    workers["w4"] = {"census": {"finding": "stopped", "worker": None}, "staged": staged()}
    assert plan(workers)["order"] == ["w4", "w3", "w2", "w1"], "who does not serve is first all the same"


def test_the_window_of_a_stage_is_whole_where_workers_stay_out():
    """The gate's floor counts them, as they are when it is asked."""
    out = {"census": census(state="drained", drain={"owner": "somebody"}), "staged": staged()}
    made = plan(fleet(6, w2=out), window=3, solver_foreign_drain="exclude")
    assert (made["stages"][0]["workers"], made["stages"][0]["window"]) == (["w1", "w3", "w4", "w5", "w6"], 3)
    assert (made["window"], made["floor"]) == (3, 3)


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


def test_who_would_not_survive_a_restart_is_named_with_the_cause():
    """As status does; the update itself mends it, but one that fails could not go back."""
    def broken(why):
        return {"census": {**census(), "release_problem": why}, "staged": staged()}

    made = plan(fleet(5, w1=broken("its interpreter is 3.13 now"), w3=broken("its interpreter is 3.13 now"),
                      w4=broken("its release '1.2.0-a' is gone")))
    assert made["order"] == ["w1", "w2", "w3", "w4", "w5"]
    assert not made["refused"]
    said = [text for text in made["warnings"] if "survive" in text]
    assert [text.split(" would not survive a restart, and could not go back to what runs: ")[0] for text in said] == [
        "w1, w3", "w4"]
    assert ": its interpreter is 3.13 now; provision.yml with the version that runs mends it" in said[0]
    assert "warning: " + said[1] in _plan_lines.plan_lines(made)


def test_forks_never_cut_the_window_and_it_is_said_where_they_do_not_suffice():
    made = plan(fleet(8), forks=2, window=4)
    assert made["stages"][0]["window"] == 4
    assert made["warnings"] == ["forks is 2, so the window of 4 is not always full; use --forks 6"]
    soaks = {"solver_min_healthy_time": 60.0, "soaking": 2}
    assert "use --forks 7" in plan(fleet(8), forks=6, window=4, **soaks)["warnings"][0]
    assert plan(fleet(8), forks=7, window=4, **soaks)["warnings"] == []
    assert plan(fleet(8), forks=5, window=4, solver_min_healthy_time=0.0)["warnings"] == [], "without a soak"
    assert "--forks 6 suffices" in plan(fleet(60), forks=60, window=4)["warnings"][0]


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


AMOUNTS = st.lists(st.integers(1, 9) | st.integers(1, 100).map(lambda percent: f"{percent}%"), max_size=4)


@given(st.integers(1, 40), st.integers(1, 20), AMOUNTS, st.sampled_from(["sliding", "waves"]))
def test_every_worker_is_in_exactly_one_stage_in_the_plans_order(size, window, amounts, how):
    made = plan(fleet(size), window=window, solver_stages=amounts, solver_window=how)
    assert [name for one in stages(made) for name in one] == made["order"]
    assert sorted(made["order"]) == sorted(made["workers"])
    assert all(stages(made))
    if how == "waves":
        assert all(len(one) <= window for one in stages(made))


def test_a_worker_without_a_census_spends_and_one_without_a_release_is_refused():
    made = plan(fleet(4, w4={"census": None, "staged": None}))
    assert made["workers"]["w4"]["action"] == "unreachable"
    assert plan(fleet(4, w4={"census": census(), "staged": None}))["refused"] == ["w4: no release was staged for it"]


def test_a_rerun_with_the_same_target_continues_and_keeps_where_each_came_from():
    begun = {"census": census("1.3.0", release="1.3.0-new", record=record()), "staged": staged(at_target=True)}
    made = plan(fleet(4, w1=begun))
    assert (made["rollout_id"], made["continued"]) == ("r0", True)
    assert made["workers"]["w1"]["action"] == "already"
    assert made["workers"]["w1"]["back_to"] == "1.2.0-old"
    assert made["workers"]["w2"]["back_to"] == "1.2.0-old"
    assert "continues rollout r0" in _plan_lines.plan_lines(made)


@pytest.mark.parametrize("old", [record(target="1.4.0"), record(verdict="rolled_back"), record(kind="rollback")])
def test_another_target_or_one_that_is_over_is_a_new_rollout(old):
    made = plan(fleet(2, w1={"census": census(record=old), "staged": staged()}))
    assert (made["rollout_id"], made["continued"]) == ("r1", False)


def test_what_was_replaced_meanwhile_is_not_continued():
    older, newer = record("r0"), record("r9", target="1.4.0")
    newer["rollout"]["started_at"] = "2026-11-24T02:00:00Z"
    made = plan({"w1": {"census": census(record=older), "staged": staged()},
                 "w2": {"census": census(record=newer), "staged": staged()}})
    assert made["rollout_id"] == "r1"


def test_a_named_rollout_is_that_one():
    assert plan(solver_rollout_id="mine")["rollout_id"] == "mine"


def test_a_fleet_that_lacks_part_of_its_roster_is_refused_with_the_remedies():
    known = record()
    known["roster"] = ["w1", "w2", "w3"]
    seen = {"census": census(record=known), "staged": staged()}
    refused = plan({"w1": seen, "w2": dict(seen)})["refused"]
    assert len(refused) == 1
    assert "lacks w3" in refused[0]
    assert "solver_forget" in refused[0]
    assert "solver_allow_partial" in refused[0]
    assert plan({"w1": seen, "w2": dict(seen)}, solver_forget=["w3"])["refused"] == []
    assert plan({"w1": seen, "w2": dict(seen)}, solver_allow_partial=True)["refused"] == []
    assert plan({"w1": seen, "w2": dict(seen)}, solver_forget=["w3"])["lock"]["roster"] == ["w1", "w2"]


def test_the_expected_size_guards_the_first_rollout():
    assert "solver_fleet_size is 5" in plan(fleet(4), solver_fleet_size=5)["refused"][0]
    assert plan(fleet(4), solver_fleet_size=4)["refused"] == []


def test_a_live_lock_refuses_and_names_its_holder():
    held = record()
    held["lock"] = lock()
    workers = fleet(2, w1={"census": census(record=held, lock_state="held"), "staged": staged()})
    refused = plan(workers)["refused"]
    assert "ada on deck (night shift) holds w1 since then, last seen later" in refused[0]
    assert "solver_lock_steal: true" in refused[0]
    assert plan(workers, dead=["run0"])["refused"] == []
    assert plan(workers, solver_lock_steal=True)["refused"] == []
    workers["w1"]["census"]["lock_state"] = "expired"
    assert plan(workers)["refused"] == []


def test_the_lock_needs_more_than_half_and_the_first_by_name_leads():
    gone = {"census": {"unreachable": True, "msg": "no route"}, "staged": None}
    made = plan(fleet(4, w1=gone))
    assert made["lock"]["leader"] == "w2"
    assert made["lock"]["needed"] == 3
    ours = {"ours": True}
    assert _plan_locks.lock_refusals(made, {"w2": ours, "w3": ours, "w4": ours}) == []
    lost = {"w2": ours, "w3": ours, "w4": {"unreachable": True}}
    assert "only 2 of the fleet" in _plan_locks.lock_refusals(made, lost)[0]
    bad = {"failed": True, "msg": "held by ada", "ours": False}
    assert _plan_locks.lock_refusals(made, {"w2": bad}) == ["w2: held by ada"]


def test_the_estimate_follows_the_workers_own_solve_times():
    made = plan({"w1": slow(80.0), "w2": updated()}, solver_drain_grace=5.0, solver_min_healthy_time=60.0)
    assert made["estimate_s"] == 5 + 80 + 5 + 30 + 60
    assert made["probes"] == 1
    assert "99 % of the solves take up to 80 s" not in str(made["warnings"])
    assert "solver_drain_timeout 60" in str(plan({"w1": slow(80.0)}, solver_drain_timeout=60.0)["warnings"])


def test_the_estimate_knows_the_window_the_soak_outside_it_and_the_stages():
    workers = {f"w{number}": slow(60.0) for number in range(1, 5)}
    one = 5 + 60 + 5 + 30  # grace, drain, restart, probe
    own = {"solver_drain_grace": 5.0, "solver_min_healthy_time": 0.0}
    assert plan(workers, **own)["estimate_s"] == 4 * one
    assert plan(workers, window=2, soaking=2, **own)["estimate_s"] == 2 * one
    assert plan(workers, window=2, solver_stages=[1], **own)["estimate_s"] == 4 * one, "stages of one"
    soaks = {**own, "solver_min_healthy_time": 50.0}
    assert plan(workers, soaking=1, **soaks)["estimate_s"] == 4 * one + 50, "the next one drains while this one soaks"
    assert plan(workers, soaking=0, **soaks)["estimate_s"] == 4 * (one + 50), "each keeps its place to the soak's end"
    assert plan(workers, kind="rollback", solver_version="1.3.0", **soaks)["estimate_s"] == 4 * one


def test_a_rollback_returns_each_to_its_own_release_and_again_changes_nothing():
    def at_new(own):
        return {"census": census("1.3.0", release="1.3.0-new", record=own), "staged": None}

    first = record(verdict="completed")
    second = record(verdict="completed")
    second["rollout"]["from"] = {"version": "1.1.0", "release": "1.1.0-old"}
    made = plan({"w1": at_new(first), "w2": at_new(second)}, kind="rollback", solver_version="")
    assert [made["workers"][name]["release"] for name in ("w1", "w2")] == ["1.2.0-old", "1.1.0-old"]
    back = record("r5", kind="rollback", target="previous", verdict="completed")
    back["rollout"].update({"to": {"version": "1.2.0", "release": "1.2.0-old"},
                            "from": {"version": "1.3.0", "release": "1.3.0-new"}})
    again = plan({"w1": {"census": census(record=back), "staged": None}}, kind="rollback", solver_version="")
    assert again["order"] == []
    assert again["workers"]["w1"]["action"] == "already"


def test_a_rollback_without_a_release_to_return_to_is_refused():
    made = plan({"w1": {"census": census(), "staged": None}}, kind="rollback", solver_version="")
    assert "name one with solver_version" in made["refused"][0]


def test_only_some_workers():
    made = plan(fleet(3), solver_only=["w2"])
    assert made["order"] == ["w2"]
    assert made["workers"]["w1"]["reason"] == "not named by solver_only"


@given(st.integers(1, 30), st.integers(1, 10), st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_the_inventory(size, window, random):
    workers = fleet(size)
    shuffled = list(workers.items())
    random.shuffle(shuffled)
    assert plan(dict(shuffled), window=window) == plan(workers, window=window)


def test_what_a_dead_rollout_left_unverified_is_nothing_to_go_back_to():
    """It switched the worker and died; what follows, with another target or to recover, knows what served before."""
    drain = {"owner": "r0", "expired": False, "version": "1.2.0"}
    left = census("1.3.0", "drained", "1.3.0-new", drain, record("r0"))
    other = {"release": {"id": "1.5.0-new", "version": "1.5.0"}, "at_target": False}
    made = plan(fleet(2, w1={"census": left, "staged": other}), solver_version="1.5.0")["workers"]["w1"]
    assert (made["from_release"], made["back_to"]) == ("1.3.0-new", "1.2.0-old")
    # one that serves was verified, by that rollout or by itself
    serves = census("1.3.0", release="1.3.0-new", record=record("r0"))
    made = plan(fleet(2, w1={"census": serves, "staged": other}), solver_version="1.5.0")["workers"]["w1"]
    assert made["back_to"] == "1.3.0-new"
    # and one that was updated and ended some time later
    ended = census("1.3.0", "drained", "1.3.0-new", drain, record("r0", outcome="updated", verdict="completed"))
    made = plan(fleet(2, w1={"census": ended, "staged": other}), solver_version="1.5.0")["workers"]["w1"]
    assert made["back_to"] == "1.3.0-new"
    # the one that replaced it died as well, before its switch
    later = record("r9", "1.5.0", to={"version": "1.5.0", "release": "1.5.0-new"})
    held = census("1.3.0", "drained", "1.3.0-new", drain, {**later, "superseded": [{"id": "r0"}]})
    made = plan({"w1": {"census": held, "staged": None}}, kind="recover", solver_version="")["workers"]["w1"]
    assert (made["release"], made["back_to"], made["probe"]) == ("1.3.0-new", "1.2.0-old", True)


def test_a_quarantined_worker_that_is_named_is_rolled_back_to_what_served():
    """What the README tells the operator to do; the drain of the rollout that failed is taken over."""
    drain = {"owner": "r0", "expired": False, "version": "1.2.0"}
    held = census("1.3.0", "drained", "1.3.0-new", drain, record("r0", outcome="quarantined", verdict="aborted"))
    other = {"census": census("1.2.0"), "staged": None}
    made = plan({"w1": {"census": held, "staged": None}, "w2": other}, kind="rollback", solver_version="",
                solver_only=["w1"])
    own = made["workers"]["w1"]
    assert (made["order"], made["refused"]) == (["w1"], [])
    assert (own["release"], own["steal"]) == ("1.2.0-old", True)


def test_only_another_run_is_worth_waiting_for():
    held, changed, full = ({"failure": {"code": code}} for code in ("held", "changed", "no_space"))
    assert _plan_locks.quicker({"w1": {"ours": True}, "w2": held})
    assert _plan_locks.quicker({"w1": changed})
    assert not _plan_locks.quicker({"w1": {"ours": True}, "w2": full, "w3": {"unreachable": True}})
    taken = census(record={**record("r0"), "lock": lock()}, lock_state="held")
    made = plan(fleet(2, w1={"census": taken, "staged": staged()}))
    assert made["refused"] == made["locked"] != []
    made = plan(fleet(2, w1={"census": taken, "staged": staged()}), solver_fleet_size=3)
    assert made["refused"] != made["locked"] != []


@pytest.mark.parametrize(("now", "then", "machine", "refused"), [
    ("10.0.0.1:8081", "10.0.0.1:8082", "front", True),
    ("10.0.0.1:8081", "10.0.0.9:8081", "front", True),
    ("127.0.0.1:8081", "127.0.0.1:8082", "m1", True),
    # No router on another machine has ever sent to a loopback: the way from a fleet without routers to one with them.
    ("127.0.0.1:8081", "10.0.0.1:8081", "front", False),
    ("10.0.0.1:8081", "10.0.0.1:8081", "front", False),
    # What an early version of the collection staged does not say.
    (None, "10.0.0.1:8082", "front", False),
])
def test_a_worker_that_routers_know_does_not_move(now, then, machine, refused):
    workers = fleet(2)
    workers["w2"]["census"]["releases"]["current"]["data_address"] = now
    workers["w2"]["staged"]["release"]["data_address"] = then
    said = plan(workers, routers={"r1": {"machine": machine}})["refused"]
    assert bool(said) is refused
    if refused:
        assert f"w2 from {now} to {then}: " in said[0]
        assert "solver_data_port" in said[0]
    assert not plan(workers)["refused"], "without routers it moves"
    workers["w2"]["census"]["worker"]["state"] = "failed"
    assert not plan(workers, routers={"r1": {"machine": machine}})["refused"], "what never served moves"


@pytest.mark.parametrize(("finding", "state", "kept"), [
    ("answering", "running", False), ("answering", "failed", True), ("stopped", None, True)])
def test_only_a_worker_that_serves_keeps_its_address(finding, state, kept):
    seen = {"finding": finding, "worker": state and kit.status(state=state),
            "releases": {"current": {"id": "one", "data_address": "10.0.0.1:8081"}}}
    wanted = {"data_address": "10.0.0.1:8082", "machine": "m1"}
    assert address_kept(seen, wanted, {"r1": {"machine": "front"}}) is kept
    assert address_kept(seen, wanted, {}) is True


@pytest.mark.parametrize(("config", "address"), [
    ({"worker": {"name": "w1"}, "data": {"host": "10.0.0.1", "port": 8081}, "probe": {"port": 1}}, "10.0.0.1:8081"),
    ({"data": {"port": 8081, "token_file": "x", "host": "::1"}}, "::1:8081"),
    ({"data": {"port": 8081}, "control": {"host": "10.0.0.1"}}, None),
    ({"worker": {"name": "w1"}}, None),
])
def test_a_configuration_says_where_it_answers(config, address):
    assert data_address(_toml.dumps(config)) == address


def test_a_plan_refuses_a_fleet_that_the_run_could_not_lock():
    gone = {"census": {"unreachable": True, "msg": "No route to host"}}
    made = plan(dict.fromkeys(["w1", "w2", "w3", "w4"], gone))
    assert len(made["refused"]) == 1
    assert "only 0 of the fleet's workers could be locked, 3 are needed" in made["refused"][0]
    assert "w1 cannot be reached: No route to host" in made["refused"][0]
    assert plan(fleet(2) | {"w3": gone, "w4": gone})["refused"]
    assert plan(fleet(3) | {"w4": gone})["refused"] == []
    assert plan(dict.fromkeys(["w1"], gone), kind="recover", solver_version="")["refused"]


def test_a_plan_says_how_to_stop_it():
    assert any("After Ctrl-C run the same command again" in line for line in _plan_lines.plan_lines(plan(fleet(2))))
    assert not any("Ctrl-C" in line for line in _plan_lines.plan_lines(plan({"w1": updated()})))


@pytest.mark.parametrize(("machines", "window", "order"), [
    ("aabb", 2, ["w1", "w3", "w2", "w4"]), ("aaab", 2, ["w1", "w4", "w2", "w3"]), ("aabb", 1, ["w1", "w2", "w3", "w4"]),
    ("aaaa", 2, ["w1", "w2", "w3", "w4"]), ("aabbcc", 3, ["w1", "w3", "w5", "w2", "w4", "w6"])])
def test_those_that_leave_service_together_are_on_different_machines(machines, window, order):
    """As far as there are others; otherwise the order stands."""
    own = {f"w{number}": machine for number, machine in enumerate(machines, 1)}
    assert _plan.spread(list(own), own, window) == order
