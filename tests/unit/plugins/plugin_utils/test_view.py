# SPDX-License-Identifier: GPL-3.0-or-later
"""The one view of the fleet: what is kept of an answer, who is asked again, and when it is too old to decide by."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate, _view
from hypothesis import given
from hypothesis import strategies as st
from rollout_kit import census, plan, record

NOW = 1000.0


def test_of_an_answer_only_what_the_gate_needs_is_kept():
    full = record()
    full["request"] = {"what": "pause", "by": "ada\n", "reason": "lunch", "at": "then"}
    answer = {"census": census(), "record": full, "ours": True, "holder": {"run_id": "run1"}}
    assert _view.seen(answer, 5.0) == {
        "at": 5.0, "looked": 5.0, "census": {"worker": {"state": "running", "drain": False}},
        "record": {"request": {"what": "pause", "by": "ada", "reason": "lunch"}}}
    assert _view.seen({"census": census(state="drained", drain={"owner": "r1"})}, 5.0)["census"] == {
        "worker": {"state": "drained", "drain": True}}
    full_disk = {"worker": {**census()["worker"], "accepting": False}}
    assert _view.seen({"census": full_disk}, 5.0)["census"] == {
        "worker": {"state": "running", "drain": False, "accepting": False}}
    lost = {"failed": True, "failure": {"code": "lock_lost", "message": "run x\nholds it", "details": {"holder": 1}}}
    assert _view.seen(lost, 5.0)["failure"] == {"code": "lock_lost", "message": "run x holds it"}
    assert _view.seen({"census": {"finding": "stopped", "worker": None}}, 5.0) == {
        "at": 5.0, "looked": _view.NEVER, "census": {"worker": None}}


def test_what_a_worker_says_in_its_turn_hides_no_request():
    asked = _view.seen({"census": census(), "record": {"request": {"what": "abort"}}}, 5.0)
    after = _view.seen({"census": census()}, 9.0, asked)
    assert (after["at"], after["looked"], after["record"]) == (9.0, 5.0, asked["record"])
    back = _view.seen({"census": census(), "record": {"request": None}}, 12.0, after)
    assert "record" not in back, "it was taken back"


@pytest.mark.parametrize("answer", [
    {"census": census()}, {"census": census(state="drained", drain={"owner": "x"})},
    {"census": {"finding": "dead", "worker": None}}, {}, {"unreachable": True, "msg": "gone"},
    {"failed": True, "failure": {"code": "lock_lost", "message": "x"}},
])
def test_the_gate_decides_by_the_small_part_as_by_the_whole(answer):
    made = plan()
    live = {name: {"census": census()} for name in made["lock"]["workers"]}

    def ask(seen):
        return _gate.gate(made, {}, {**live, "w1": seen}, _gate.Asking("w2"), _gate.Stall(0.0, 900.0))

    assert ask(_view.seen(answer, NOW)) == ask(answer)


def test_one_that_was_silent_once_is_not_lost_yet():
    gone = {"unreachable": True, "msg": "no\nroute"}
    first = _view.seen(gone, 1.0, {"at": 0.0, "census": {"worker": None}})
    assert first == {"at": 1.0, "unreachable": True, "silent": 1, "msg": "no route"}
    assert _view.lost({"w1": first}) == set()
    second = _view.seen(gone, 2.0, first)
    assert _view.lost({"w1": second, "w2": first}) == {"w1"}
    assert _view.lost({"w1": _view.seen({"census": census()}, 3.0, second)}) == set(), "it is back"


def known(**ages):
    return {name: {"at": NOW - age, "looked": NOW - age, "census": {"worker": None}} for name, age in ages.items()}


def test_who_answered_long_ago_is_asked_again_the_oldest_first():
    view = known(a=9.0, b=11.0, c=30.0, d=1.0, e=1.0)
    assert _view.to_ask(view, ["a", "b", "c", "d", "e", "new"], NOW) == ["new", "c", "b"]
    assert _view.to_ask(view, ["a", "d", "e"], NOW) == []
    assert _view.to_ask(view, ["a", "b"], NOW, soon=["a"]) == ["b", "a"], "sooner, who keeps the gate waiting"
    silent = known(a=3.0) | {"b": {"at": NOW - 3.0, "unreachable": True, "silent": 1},
                             "c": {"at": NOW - 3.0, "unreachable": True, "silent": 2}}
    assert _view.to_ask(silent, ["a", "b", "c"], NOW) == ["b"], "sooner, who was silent once"


def test_a_large_fleet_is_asked_at_a_steady_pace_until_one_of_it_is_a_surprise():
    """Else the looks alone would keep a controller busy: 1,000 workers every 10 s."""
    ages = {f"w{number}": float(number) for number in range(1, 100)}
    view, names = known(**ages), list(ages)
    assert _view.to_ask(view, names, NOW) == [], "news is there, and nobody is older than a second for each worker"
    assert _view.to_ask(known(**ages | {"w5": 101.0}), names, NOW) == ["w5"]
    thousand = known(**dict.fromkeys((f"w{number}" for number in range(1000)), 601.0), news=0.0, more=0.0)
    assert len(_view.to_ask(thousand, list(thousand), NOW)) == 1000, "a look renews its lock"
    assert _view.is_stale(known(old=1801.0, news=0.0, more=0.0), ["old", "news", "more"], NOW, 1.0, 2)
    dead = {"census": {"finding": "dead", "worker": None}, "record": {}}
    view["w5"] = _view.seen(dead, NOW - 20.0, _view.seen({"census": census(), "record": {}}, NOW - 80.0))
    asked = _view.to_ask(view, names, NOW)
    assert asked[:2] == ["w99", "w98"]
    assert set(asked) == {name for name, age in ages.items() if age > 20}
    view["w5"] = _view.seen(dead, NOW, view["w5"])
    assert view["w5"]["surprised"] == NOW - 20.0, "it is no surprise again"


@pytest.mark.parametrize(("answer", "before", "surprise"), [
    ({"census": {"finding": "dead", "worker": None}}, {"census": census()}, True),
    ({"census": {"worker": {**census()["worker"], "accepting": False}}}, {"census": census()}, True),
    ({"census": census(state="drained", drain={"owner": "x"})}, {"census": census()}, False),
    ({"census": census()}, {"census": census()}, False),
    ({"census": {"finding": "dead", "worker": None}}, {"census": {"finding": "dead", "worker": None}}, False),
    ({"unreachable": True}, {"unreachable": True}, True),
    ({"unreachable": True}, {"census": census()}, False),
])
def test_a_surprise_is_who_takes_no_task_any_more_and_does_not_drain(answer, before, surprise):
    seen = _view.seen(answer, 9.0, _view.seen(before, 8.0))
    assert seen.get("surprised") == (9.0 if surprise else None)


@pytest.mark.parametrize(("ages", "look_s", "parallel", "stale"), [
    ({"a": 29.0, "b": 1.0, "c": 1.0}, 1.0, 2, False),
    ({"a": 31.0, "b": 1.0, "c": 1.0}, 1.0, 2, True),
    ({"a": 53.0, "b": 1.0, "c": 1.0}, 12.0, 2, False),  # three hosts of 12 s by two: three such looks are 54 s
    ({"a": 55.0, "b": 1.0, "c": 1.0}, 12.0, 2, True),
    ({"a": 90.0, "b": 1.0, "c": 1.0}, 12.0, 1, False),
])
def test_a_view_is_stale_by_its_oldest_answer_and_by_how_long_a_look_takes(ages, look_s, parallel, stale):
    assert _view.is_stale(known(**ages), list(ages), NOW, look_s, parallel) is stale


def test_a_request_that_stands_in_every_record_is_seen_before_the_next_worker():
    """All answers may be old at once, where the turns are short: then nobody has heard of it."""
    view = known(a=7.0, b=8.0, c=7.5)
    assert _view.is_stale(view, ["a", "b", "c"], NOW, 1.0, 2)
    assert _view.to_ask(view, ["a", "b", "c"], NOW) == ["b", "c"]
    assert not _view.is_stale(view, ["a", "b", "c"], NOW, 3.0, 2), "where a look takes so long"
    assert _view.is_stale({**view, **known(b=0.0)}, ["a", "b", "c"], NOW, 1.0, 2), "one that stands alone is no request"
    assert not _view.is_stale({**view, **known(b=0.0, c=5.0)}, ["a", "b", "c"], NOW, 1.0, 2)
    assert _view.to_ask({**view, **known(b=0.0, c=2.0)}, ["a", "b", "c"], NOW) == []
    assert not _view.is_stale(known(a=1.0), ["a"], NOW, 1.0, 2)
    turned = {name: {**own, "at": NOW} for name, own in view.items()}
    assert _view.is_stale(turned, ["a", "b", "c"], NOW, 1.0, 2), "what it says in its turn is no look at its record"
    lost = {name: {**own, "unreachable": True, "silent": 2} for name, own in view.items()}
    assert not _view.is_stale(lost, ["a", "b", "c"], NOW, 1.0, 2), "it would wait for ever"


def test_a_view_that_lacks_somebody_or_holds_a_doubt_decides_nothing():
    assert _view.is_stale(known(a=1.0), ["a", "b"], NOW, 1.0, 2)
    doubt = known(a=1.0) | {"b": {"at": NOW, "unreachable": True, "silent": 1}}
    assert _view.is_stale(doubt, ["a", "b"], NOW, 1.0, 2)
    assert not _view.is_stale(doubt, ["a"], NOW, 1.0, 2), "who is in flight is not asked"
    doubt["b"]["silent"] = 2
    assert not _view.is_stale(doubt, ["a", "b"], NOW, 1.0, 2)


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 60)), st.floats(0.1, 5), st.integers(1, 8))
def test_whoever_makes_a_view_stale_is_asked(ages, look_s, parallel):
    """Else a gate would wait for ever."""
    view, names = known(**ages), list("abcdef")
    for _look in range(2):  # those that are old, and then those that have news
        if _view.is_stale(view, names, NOW, look_s, parallel):
            asked = _view.to_ask(view, names, NOW)
            assert asked
            view |= known(**dict.fromkeys(asked, 0.0))
    assert not _view.is_stale(view, names, NOW, look_s, parallel)
