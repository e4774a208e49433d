# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of canaries at the gate: when it asks, what it writes down, and how it ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _bake
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._bake import Bake, Ended
from entry_kit import status

LIVE = {name: {"at": 0.0, "census": {"worker": {"state": "running", "drain": False}}} for name in ("w1", "w2", "w3")}
NOW = time.monotonic()


class Gate:
    """Keeps what is written into the records; SILENT workers do not answer."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.written: list[tuple[str, dict[str, Any]]] = []

    def lock_args(self, name: str) -> dict[str, Any]:
        return {"worker_dir": f"/{name}"}

    def everywhere(self, module: str, args: Any, _read: Any) -> dict[str, dict[str, Any]]:
        assert module == "rollout_lock"
        self.written += [(name, own) for name, own in args.items() if name not in self.silent]
        return {name: {"unreachable": True} if name in self.silent else {"ours": True} for name in args}

    def words(self) -> dict[str, str]:
        return {name: own["judgement"]["word"] for name, own in self.written if "judgement" in own}


def made(gate: Gate, promote: str = "auto", judged: Any = None, baselines: Any = None, bake_s: float = 60) -> Bake:
    return Bake(gate, {"promote": promote, "bake": {
        "canaries": ["w1"], "control": ["w2", "w3"], "min_tasks": 100, "bake_s": bake_s, "max_s": 120.0,
        "needs_s": None, "least_s": None, "traffic": "", "judged": judged, "baselines": baselines or {}}})


def says(bake: Bake, at: float, journal: str = "j", **counts: tuple[int, int]) -> None:
    """Each worker has solved, and failed, so many tasks; those that are not named, none."""
    for name in ("w1", "w2", "w3"):
        succeeded, failed = counts.get(name, (0, 0))
        document = status(journal={"id": journal, "schema": 1, "min_reader": 1, "writable": True}, failures=None)
        document["totals"] = {**document["totals"], "succeeded": 1000 + succeeded, "failed": 100 + failed, "expired": 0}
        bake.take(name, {"census": {"finding": "answering", "worker": document}}, at)


def step(bake: Bake, after: float) -> Ended | None:
    return bake.step(LIVE, NOW + after)


def begun(gate: Gate, **more: Any) -> Bake:
    bake = made(gate, **more)
    says(bake, NOW)
    assert step(bake, 0) is None
    return bake


def test_nobody_is_judged_before_the_baseline_is_in_all_records():
    gate = Gate()
    bake = made(gate)
    assert bake.due(NOW) == ["w1", "w2", "w3"], "the canaries first: they are what is waited for"
    assert step(bake, 0) is None
    assert gate.written == [], "not everybody has been asked"
    says(bake, NOW, w1=(10, 0))
    assert step(bake, 0) is None
    assert {name: own["baseline"]["arm"] for name, own in gate.written} == {
        "w1": "canary", "w2": "control", "w3": "control"}
    assert bake.due(NOW + 1) == []
    assert len(bake.due(NOW + 3)) == 3, "a twentieth of the time"


@pytest.mark.parametrize(("new", "word"), [((95, 5), "promote"), ((70, 30), "fail")])
def test_what_is_judged_is_in_the_records_before_it_is_said(new: tuple[int, int], word: str):
    gate = Gate()
    bake = begun(gate)
    says(bake, NOW + 60, w1=new, w2=(95, 5), w3=(190, 10))
    ended = step(bake, 60)
    assert ended is not None
    assert ended.word == word
    assert gate.words() == dict.fromkeys(("w1", "w2", "w3"), word)


def test_a_judgement_that_most_cannot_keep_is_none():
    gate = Gate()
    bake = begun(gate)
    gate.silent = ("w2", "w3")
    says(bake, NOW + 60, w1=(95, 5), w2=(95, 5), w3=(190, 10))
    ended = step(bake, 60)
    assert ended is not None
    assert (ended.word, "only w1" in ended.reason) == ("inconclusive", True)


def test_a_worker_without_a_baseline_is_in_no_arm():
    bake = begun(Gate("w3"))
    says(bake, NOW + 60, w1=(30, 0), w2=(30, 0), w3=(0, 500))
    old, new = bake.arms()
    assert (old.workers, old.tasks, new.tasks) == (1, 30, 30)
    ended = begun_without_canary().step(LIVE, NOW)
    assert ended is not None
    assert ended.word == "inconclusive"


def begun_without_canary() -> Bake:
    bake = made(Gate("w1"))
    says(bake, NOW)
    return bake


def test_a_worker_with_another_journal_leaves_its_arm():
    bake = begun(Gate())
    says(bake, NOW + 60, journal="another", w1=(95, 5))
    assert [arm.workers for arm in bake.arms()] == [0, 0]
    ended = step(bake, 121)
    assert ended is not None
    assert ended.word == "inconclusive"


def test_it_goes_on_where_it_was():
    """Nothing is written anew, the time counts from then, and what was looked at is not looked at again."""
    gate = Gate()
    bake = begun(gate)
    says(bake, NOW + 5, w1=(28, 5), w2=(95, 5), w3=(95, 5))
    assert step(bake, 5) is None
    looked = [own["baseline"]["looks"] for name, own in gate.written if name == "w1"]
    assert looked == [0, 1]
    at = (datetime.now(UTC) - timedelta(seconds=61)).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {name: {**own["baseline"], "at": at} for name, own in gate.written}
    known["w3"]["looks"] = 100  # no canary's word
    later = Gate()
    again = made(later, baselines=known)
    assert 60 <= time.monotonic() - again.began <= 70
    assert again.look.due == 1
    says(again, NOW, w1=(95, 5), w2=(95, 5), w3=(190, 10))
    ended = again.step(LIVE, time.monotonic())
    assert ended is not None
    assert ended.word == "promote"
    assert {tuple(own) for _name, own in later.written} == {("worker_dir", "judgement")}


@pytest.mark.parametrize("word", ["promote", "fail"])
def test_what_was_judged_is_said_again_without_a_look(word: str):
    gate = Gate()
    for promote in ("auto", "manual", "now"):
        judged = {"word": word, "reason": "as it was", "at": "2026-11-24T02:00:00Z"}
        assert made(gate, promote=promote, judged=judged).step({}, NOW) == Ended(word, "as it was")
    assert gate.written == []


def test_who_promotes_by_hand_waits_for_nobody():
    gate = Gate()
    ended = made(gate, promote="now").step({}, NOW)
    assert ended is not None
    assert ended.word == "promote"
    assert gate.words() == dict.fromkeys(("w1", "w2", "w3"), "promote")


@pytest.mark.parametrize(("worker", "fails"), [
    (None, True), ({"state": "failed", "drain": False}, True), ({"state": "drained", "drain": True}, False)])
def test_a_canary_that_serves_no_more_has_failed_unless_somebody_drained_it(worker: Any, fails: bool):
    bake = begun(Gate())
    live = {**LIVE, "w1": {"at": 0.0, "census": {"worker": worker}}}
    assert bake.step(live, NOW + 1) is None
    assert bake.step(LIVE, NOW + 20) is None, "its service has started it again"
    assert bake.step(live, NOW + 21) is None
    ended = bake.step(live, NOW + 22 + _bake.DOWN_S)
    assert (ended.word if ended else None) == ("fail" if fails else None)


def test_whoever_was_not_read_for_longest_is_next_however_many_there_are():
    """Else the first ones are due again before the last ones were ever read."""
    bake = made(Gate(), bake_s=20)
    bake.asked = {"w1": NOW - 3, "w2": NOW - 9}
    assert bake.due(NOW) == ["w3", "w2", "w1"]
    many = Bake(Gate(), {"promote": "auto", "bake": {
        "canaries": ["c"], "control": [f"w{number}" for number in range(400)], "min_tasks": 100, "bake_s": 600.0,
        "max_s": 900.0, "needs_s": None, "least_s": None, "traffic": "", "judged": None, "baselines": {}}})
    many.asked = dict.fromkeys(many.arm_of, NOW)
    assert many.due(NOW + 11) == ["c"], "a large control group is read at a pace"
    assert len(many.due(NOW + 101)) == 401


def test_a_canary_that_is_down_is_not_promoted_and_each_time_counts():
    down = {**LIVE, "w1": {"at": 0.0, "census": {"worker": None}}}
    bake = begun(Gate())
    says(bake, NOW + 60, w1=(95, 5), w2=(95, 5), w3=(190, 10))
    assert bake.step(down, NOW + 60) is None
    assert bake.step(down, NOW + 80) is None
    bake.began = NOW + 1000  # nothing is judged meanwhile
    assert bake.step(LIVE, NOW + 85) is None
    assert bake.step(down, NOW + 90) is None
    ended = bake.step(down, NOW + 96)
    assert ended is not None
    assert ended.word == "fail", "it was down for 25 s, and for 6 s more"
