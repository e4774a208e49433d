# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a place in the window, and who is next."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit
from hypothesis import given
from hypothesis import strategies as st


def plan(*stages: list[str], window: int = 1, max_soaking: int = 1) -> dict[str, Any]:
    return {"max_soaking": max_soaking, "stages": [{"workers": stage, "window": window} for stage in stages],
            "workers": {name: {"switch": "in_place"} for stage in stages for name in stage}}


def beside(*names: str, window: int = 1, surge: int = 2, **stage: Any) -> dict[str, Any]:
    """One stage in which standbys take over."""
    made = plan(list(names), window=window)
    made["stages"][0].update(stage)
    return {**made, "surge": surge, "workers": {name: {"switch": "standby"} for name in names}}


def state(begun: tuple[int, ...] = (0,), closed: dict[str, Any] | None = None, **phase: str) -> dict[str, Any]:
    return {**_admit.begin(0.0), "phase": phase, "begun": list(begun), "closed": closed or {}}


def test_before_the_first_turn_nothing_has_begun():
    made = _admit.begin(7.0)
    assert (made["phase"], made["begun"], made["ended"], made["closed"], made["healthy_at"]) == ({}, [], [], {}, 7.0)


@pytest.mark.parametrize(("phase", "asking", "why"), [
    ({}, "a", ""),
    ({}, "b", _admit.NOT_YET),
    ({"a": "turn"}, "b", ""),
    ({"a": "turn", "b": "turn"}, "c", "the window of 2 is full"),
    ({"a": "turn", "b": "left"}, "c", ""),
    ({"a": "left"}, "c", _admit.NOT_YET),
    ({"a": "left"}, "a", _admit.NOT_YET),  # nobody has two turns
    ({"a": "again"}, "b", "a must go back first"),
    ({"a": "turn", "b": "soak"}, "c", ""),
    ({"a": "soak", "b": "soak", "c": "turn"}, "d", "the window of 2 is full"),
])
def test_one_is_next_in_the_plans_order(phase, asking, why):
    assert _admit.waits_for(plan(["a", "b", "c", "d"], window=2), state(**phase), asking) == why


@pytest.mark.parametrize(("phase", "asking", "why"), [
    ({}, "a", ""),
    ({"a": "raise"}, "b", ""),
    ({"a": "raised", "b": "raise"}, "c", "2 workers have a standby already, as many as solver_surge"),
    ({"a": "turn", "b": "raise"}, "c", "2 workers have a standby already, as many as solver_surge"),
    ({"a": "soak", "b": "raise"}, "c", ""),
    ({"a": "again"}, "b", ""),  # it serves while its standby is raised
])
def test_as_many_standbys_as_the_surge(phase, asking, why):
    assert _admit.waits_for(beside("a", "b", "c"), state(**phase), asking) == why


@pytest.mark.parametrize(("phase", "asking", "why"), [
    ({"a": "raised"}, "a", ""),
    ({"a": "raise", "b": "raised"}, "b", ""),  # whoever is verified first
    ({"a": "raised", "b": "raised"}, "b", _admit.NOT_YET),
    ({"a": "turn", "b": "raised"}, "b", "the window of 1 is full"),
    ({"a": "soak", "b": "raised"}, "b", ""),
    ({"a": "again", "b": "raised"}, "b", "a must go back first"),
])
def test_the_window_is_for_those_that_take_over(phase, asking, why):
    assert _admit.waits_to_take_over(beside("a", "b", "c"), state(**phase), asking) == why


def test_behind_a_barrier_nobody_takes_over_before_all_are_verified():
    made = beside("a", "b", "c", window=3, surge=3, barrier=True)
    wait = "1 standbys are not verified yet"
    assert _admit.waits_to_take_over(made, state(a="raised", b="raised", c="raise"), "a") == wait
    assert _admit.waits_to_take_over(made, state(a="raised", b="raised"), "a") == wait
    assert _admit.waits_to_take_over(made, state(a="raised", b="raised"), "b") == _admit.NOT_YET, "one of them looks"
    assert _admit.waits_to_take_over(made, state(a="raised", b="left", c="raised"), "a") == ""


def test_a_stage_whose_standbys_were_all_dropped_has_begun_and_ends():
    assert _admit.ends_stage(plan(["a", "b"], ["c"]), state(closed=CLOSED), 0)


def test_a_later_stage_is_never_first():
    made = plan(["a"], ["b", "c"])
    assert [_admit.stage_of(made, name) for name in "abc"] == [0, 1, 1]
    with pytest.raises(StopIteration):
        _admit.stage_of(made, "d")


def test_the_others_of_a_stage_wait_until_its_hook_has_ended():
    made = plan(["a", "b"], window=2)
    assert _admit.waits_for(made, state(begun=()), "a") == ""
    assert _admit.waits_for(made, state(begun=(), a="turn"), "b") == "the stage is not open yet"
    assert _admit.waits_for(made, state(a="turn"), "b") == ""


@pytest.mark.parametrize(("phases", "max_soaking", "taken"), [
    (["turn", "turn"], 1, 2),
    (["turn", "soak"], 1, 1),
    (["turn", "soak", "soak"], 1, 2),  # one beyond the bound keeps its place
    (["soak", "soak"], 0, 2),
    (["soak", "again", "left"], 1, 0),
])
def test_who_soaks_leaves_the_window_up_to_the_bound(phases, max_soaking, taken):
    assert _admit.occupied(state(**{f"w{n}": phase for n, phase in enumerate(phases)}), max_soaking) == taken


CLOSED = {"cause": "budget", "reason": "x"}


@pytest.mark.parametrize(("phase", "closed", "ends"), [
    ({"a": "left", "b": "left"}, {}, True),
    ({"a": "left"}, {}, False),  # b has not begun
    ({"a": "left"}, CLOSED, True),  # and never will
    ({"a": "left", "b": "soak"}, CLOSED, False),
    ({"a": "left", "b": "again"}, {}, False),
    ({}, CLOSED, False),  # a stage that never began does not end
])
def test_a_stage_ends_when_nobody_is_at_work_and_nobody_will_be(phase, closed, ends):
    own = state(begun=(0,) if phase else (), closed=closed, **phase)
    assert _admit.ends_stage(plan(["a", "b"], ["c"]), own, 0) is ends
    own["ended"].append(0)
    assert not _admit.ends_stage(plan(["a", "b"], ["c"]), own, 0), "it is said once"


class Play:
    """Whatever order things happen in: what the actions do to the state, without anything else."""

    def __init__(self, made: dict[str, Any], chance: random.Random) -> None:
        self.plan, self.chance, self.state = made, chance, _admit.begin(0.0)
        self.ends: list[int] = []

    def left(self, name: str, phase: str = "left") -> None:
        number = _admit.stage_of(self.plan, name)
        self.state["phase"][name] = phase
        self.look()
        if _admit.ends_stage(self.plan, self.state, number):
            self.state["ended"].append(number)
            self.ends.append(number)

    def moves(self, number: int) -> list[tuple[str, str]]:
        stage, phase = self.plan["stages"][number], self.state["phase"]
        asks = [("admit", name) for name in stage["workers"]
                if not self.state["closed"] and not _admit.waits_for(self.plan, self.state, name)]
        works = [(move, name) for name, own in phase.items() for move in {
            "turn": ["serve", "leave"], "soak": ["fail", "leave"], "again": ["return"], "left": []}[own]]
        return asks + [(move, name) for move, name in works if move != "return" or self.has_room(stage)]

    def has_room(self, stage: dict[str, Any]) -> bool:
        return _admit.occupied(self.state, self.plan["max_soaking"]) < stage["window"]

    def move(self, number: int, what: str, name: str) -> None:
        if what == "admit" and number not in self.state["begun"]:
            self.state["begun"].append(number)
        if what == "leave":
            self.left(name)
        else:
            self.state["phase"][name] = {"admit": "turn", "serve": "soak", "fail": "again", "return": "turn"}[what]
        if self.chance.random() < 0.02:
            self.state["closed"] = CLOSED
        self.look()

    def look(self) -> None:
        window, most = self.plan["stages"][0]["window"], self.plan["max_soaking"]
        assert len(_admit.in_flight(self.state)) <= window
        assert len(_admit.in_flight(self.state)) + len(_admit.soaking(self.state)) <= window + most
        flat = [name for stage in self.plan["stages"] for name in stage["workers"]]
        begun = list(self.state["phase"])
        assert begun == flat[:len(begun)], "in the plan's order, nobody passed over"


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**32))
def test_no_sequence_of_events_breaks_window_order_or_stages(sizes, window, max_soaking, seed):
    chance = random.Random(seed)
    stages = [[f"w{number}.{place}" for place in range(size)] for number, size in enumerate(sizes)]
    play = Play(plan(*stages, window=window, max_soaking=max_soaking), chance)
    for number, stage in enumerate(stages):
        while moves := play.moves(number):
            play.move(number, *chance.choice(moves))
        phases = [play.state["phase"].get(name) for name in stage]
        assert set(phases) <= {"left"} or play.state["closed"], "nobody waits for ever"
        assert "turn" not in phases
        assert "again" not in phases
        if play.state["closed"]:
            break
    begun = sum(1 for stage in stages if stage[0] in play.state["phase"])
    last_was_told = play.ends == list(range(begun)) or (play.state["closed"] and play.ends == list(range(begun - 1)))
    assert last_was_told, "each stage that began ends exactly once; the last gate that finds it closed says so"
    if play.state["closed"] and begun > len(play.ends):
        # Nobody was at work when it closed: whoever finds it closed ends the stage.
        assert _admit.ends_stage(play.plan, play.state, begun - 1)
