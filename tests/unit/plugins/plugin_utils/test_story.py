# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened when, from the events of a run alone."""

from __future__ import annotations

from typing import Any

import report_kit as kit
from ansible_collections.solver.fleet.plugins.plugin_utils import _story
from rollout_kit import census, fleet, plan

BEGUN = {"event": "begun", "clock": 100.0}


def steps(told: dict[str, Any], name: str) -> list[tuple[str, float, float, bool]]:
    return [(own["step"], own["from_s"], own["to_s"], own["ok"]) for own in told["steps"][name]]


def test_each_step_has_its_beginning_and_its_end_in_order() -> None:
    """Steps that one call told together lie one after the other; a drain over two calls begins in the first."""
    told = _story.tell(plan(fleet(2)), [BEGUN, *kit.turn("w1", 110.0)])
    assert steps(told, "w1") == [
        ("drain", 10.5, 21.0, True), ("switch", 21.0, 23.0, True), ("verify", 23.0, 24.5, True),
        ("resume", 24.5, 25.0, True), ("soak", 25.0, 27.0, True)]


def test_a_failed_step_and_the_way_back_are_told() -> None:
    told = _story.tell(plan(fleet(2)), [BEGUN, *kit.turn("w1", 110.0, failing=True)])
    assert steps(told, "w1")[2] == ("verify", 23.0, 25.0, False)
    assert [step for step, *_rest in steps(told, "w1")[3:]] == [
        "revert_drain", "revert", "revert_verify", "revert_resume"]
    back = _story.tell(plan(fleet(2)), [BEGUN, *kit.turn("w1", 110.0, part="back")])
    assert steps(back, "w1")[0][0] == "back_drain"


def test_a_step_that_says_no_time_begins_where_the_one_before_it_ended() -> None:
    told = _story.tell(plan(fleet(1)), [
        BEGUN, {"event": "program_begun", "clock": 101.0, "worker": "w1", "steps": ["drain"]},
        {"event": "step_ended", "clock": 104.0, "worker": "w1", "step": "drain", "ok": False, "reason": "gone"}])
    assert steps(told, "w1") == [("drain", 1.0, 4.0, False)]


def test_how_many_serve_and_what_they_run_follows_the_steps() -> None:
    made = plan(fleet(3))
    told = _story.tell(made, [BEGUN, *kit.turn("w1", 110.0)], dict.fromkeys(made["workers"], census()))
    curve = [(one["at_s"], one["serving"], one["versions"], one["open"]) for one in told["samples"]]
    old, mixed = {"1.2.0": 3}, {"1.2.0": 2, "1.3.0": 1}
    assert curve == [
        (0.0, 3, old, 0), (10.5, 2, old, 12), (20.0, 2, old, 4), (21.0, 2, old, 0), (23.0, 2, mixed, 0),
        (25.0, 3, mixed, 0), (27.0, 3, old, 0)], "the last look at everybody has the last word"


def test_who_is_lost_beside_the_turns_is_seen() -> None:
    told = _story.tell(plan(fleet(3)), [BEGUN, {"event": "seen", "clock": 105.0, "worker": "w3", "serves": False},
                                        {"event": "seen", "clock": 109.0, "worker": "w3", "serves": True}])
    assert [(one["at_s"], one["serving"]) for one in told["samples"]] == [(0.0, 3), (5.0, 2), (9.0, 3)]


def test_who_was_waited_for_and_how_long() -> None:
    events = [BEGUN, *kit.turn("w1", 110.0), *kit.turn("w2", 127.0)]
    assert _story.tell(plan(fleet(2)), sorted(events, key=lambda one: one["clock"]))["waits"] == [
        {"worker": "w1", "from_s": 5.0, "to_s": 10.0, "reason": "the window of 1 is full", "for": []},
        {"worker": "w2", "from_s": 22.0, "to_s": 27.0, "reason": "the window of 1 is full", "for": ["w1"]}]


def test_a_reason_that_changes_is_another_wait_and_short_ones_are_none() -> None:
    def waits(clock: float, reason: str) -> dict[str, Any]:
        return {"event": "waiting", "clock": clock, "worker": "w1", "reason": reason}

    told = _story.tell(plan(fleet(2)), [
        BEGUN, {"event": "waiting", "clock": 101.0, "reason": "ada's rollout"}, {"event": "planned", "clock": 130.0},
        waits(140.0, "w2 is away"), waits(150.0, "w2 is away"), waits(160.0, "the window is full"),
        {"event": "admitted", "clock": 160.4, "worker": "w1"}])
    assert [(one["worker"], one["to_s"] - one["from_s"], one["reason"], one["for"]) for one in told["waits"]] == [
        (None, 29.0, "ada's rollout", []), ("w1", 20.0, "w2 is away", [])]


def test_a_long_curve_is_thinned_and_keeps_its_lowest_point() -> None:
    samples = [{"at_s": float(at), "serving": 5 if at == 7001 else 50, "versions": {}, "open": at}
               for at in range(10_000)]
    short = _story.thinned(samples)
    assert len(short) <= _story.MOST_SAMPLES
    assert min(one["serving"] for one in short) == 5
    assert (short[0], short[-1]) == (samples[0], samples[-1])
    assert [one["at_s"] for one in short] == sorted(one["at_s"] for one in short)


def test_events_of_a_later_release_and_none_at_all_are_no_error() -> None:
    made = plan(fleet(1))
    assert _story.tell(made, [])["steps"] == {}
    assert _story.tell(made, [{"event": "new", "clock": 1.0}])["samples"][0]["serving"] == 1


def test_the_comparison_of_canaries_is_a_wait_of_the_rollout() -> None:
    told = _story.tell(plan(fleet(2)), [
        BEGUN, {"event": "bake", "clock": 110.0, "reason": "5 tasks"},
        {"event": "bake", "clock": 130.0, "reason": "9 tasks"},
        {"event": "judged", "clock": 170.0, "word": "promote", "reason": "as good"}])
    wait, = told["waits"]
    assert (wait["worker"], wait["from_s"], wait["to_s"]) == (None, 10.0, 70.0)
    assert "canaries" in wait["reason"]
