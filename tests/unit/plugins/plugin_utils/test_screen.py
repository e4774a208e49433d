# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see of a rollout, from its events alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils import _entry, _screen
from ansible_collections.solver.fleet.plugins.plugin_utils._screen import Screen, heartbeat, interrupted, take

PLANNED = {"event": "planned", "clock": 1.0, "kind": "update", "rollout_id": "r1", "estimate_s": 40,
           "stages": [{"workers": ["w1", "w2"]}], "lines": ["2 workers, 2 to update to 1.3.0"]}


def event(kind: str, worker: str = "w1", clock: float = 10.0, **facts: Any) -> dict[str, Any]:
    return {"event": kind, "clock": clock, "part": "roll", "worker": worker, **facts}


def outcome(word: str, worker: str = "w1", **facts: Any) -> dict[str, Any]:
    return event("outcome", worker, outcome=word, timings={"drain": 2.0}, open_at_drain=3,
                 **{"cause": None, "reason": "", "from": "1.2.0", "to": "1.3.0", **facts})


@pytest.fixture
def screen() -> Screen:
    made = Screen()
    assert take(made, PLANNED) == ["update r1", "  2 workers, 2 to update to 1.3.0"]
    assert take(made, {"event": "locked", "clock": 2.0, "workers": 2}) == []
    return made


def test_a_worker_has_a_line_when_it_begins_and_one_when_it_ends(screen: Screen) -> None:
    assert take(screen, event("admitted")) == ["w1 begins (1 of 2)"]
    assert take(screen, event("program_begun", steps=["drain", "switch"])) == []
    assert take(screen, event("progress", step="drain", ok=False, remaining={"open": 5})) == []
    assert heartbeat(screen, 22.0) == "w1 drains, 5 tasks open, 12 s (0 of 2 done, about 28 s left)"
    assert take(screen, event("step_ended", step="drain", ok=True)) == []
    assert heartbeat(screen, 23.0).startswith("w1 restarts, 13 s")
    (line,) = take(screen, outcome("updated"))
    assert line == "w1 updated 1.2.0 -> 1.3.0 in 2.0 s, 3 tasks open when its drain began (1 of 2 done)"
    assert heartbeat(screen, 24.0) == "", "nobody is at work, nobody waits, and no task is known"


def test_what_failed_and_what_follows_is_said_at_once(screen: Screen) -> None:
    take(screen, event("admitted"))
    said = [line for one in (
        event("step_ended", step="verify", ok=False, reason="its probe failed"),
        event("reference_solve", at="w2", ok=True), event("follow_up", action="revert"),
        event("step_ended", step="revert_resume", ok=False, reason="it is away"),
        outcome("quarantined", cause="release", reason="verify: its probe failed"),
        event("closed", reason="1 of 2 workers failed"), event("follow_up", action="nothing"))
        for line in take(screen, one)]
    assert said == [
        "w1 verify failed: its probe failed", "w1: the same solve at w2 passed", "w1 is reverted to where it came from",
        "w1 revert resume failed: it is away", "w1 QUARANTINED [release] verify: its probe failed (1 of 2 done)",
        "no further worker begins: 1 of 2 workers failed"]


def test_going_back_is_told_apart(screen: Screen) -> None:
    take(screen, event("admitted"))
    take(screen, outcome("updated"))
    back = {"part": "back"}
    assert take(screen, event("admitted") | back) == ["w1 goes back"]
    assert take(screen, outcome("updated", to="1.2.0") | back) == ["w1 is back at 1.2.0"]
    assert take(screen, outcome("failed", reason="gone") | back) == ["w1 could not go back: gone"]
    assert screen.ended == ["w1"]


def test_who_waits_is_said_once_and_then_from_time_to_time(screen: Screen) -> None:
    waits = event("waiting", "w1", reason="w2 is out of service")
    assert take(screen, waits) == ["waits: w2 is out of service"]
    assert take(screen, waits) == []
    assert heartbeat(screen, 60.0) == "waits: w2 is out of service (0 of 2 done)"
    take(screen, event("admitted", "w2"))
    assert take(screen, event("waiting", "w1", reason="the window of 1 is full")) == [], "no news while w2 is at work"


def test_the_time_left_is_measured_once_somebody_has_ended(screen: Screen) -> None:
    take(screen, event("admitted", clock=10.0))
    take(screen, outcome("updated") | {"clock": 70.0})
    take(screen, event("admitted", "w2", clock=70.0))
    assert heartbeat(screen, 80.0).endswith("(1 of 2 done, about 70 s left)")


def test_a_run_that_ends_without_a_verdict_says_what_it_left(screen: Screen) -> None:
    take(screen, event("admitted"))
    take(screen, event("program_begun", steps=["drain"]))
    first, then = interrupted(screen)
    assert first == "interrupted: 0 of 2 workers had their turn (rollout r1); in its turn: w1 (drains)"
    assert "same command again" in then
    assert "solver.fleet.recover" in then
    take(screen, {"event": "verdict", "clock": 9.0, "verdict": "completed", "reasons": [], "lines": ["completed: 2"]})
    assert interrupted(screen) == []
    assert screen.verdict == ["completed: 2"]
    assert interrupted(Screen()) == [], "nothing was begun"


def test_no_text_of_a_worker_moves_the_cursor(screen: Screen) -> None:
    take(screen, event("admitted"))
    (line,) = take(screen, event("step_ended", step="verify", ok=False, reason="\x1b[2J\rcompleted\nw2 updated\u202e"))
    assert line.isprintable()


def test_what_a_task_shows_is_lines() -> None:
    result = {"changed": False, "_ansible_verbose_always": True, "solver_lines": ["w1 runs", "w2 \x1b[2Jruns\nand on"]}
    assert _screen.shown(result) == ["w1 runs", "w2 ?[2Jruns", "and on"]
    assert _screen.shown({"msg": "nobody is there", "failed": False}) == ["nobody is there"]


def test_an_event_that_nobody_knows_is_none_of_ours(screen: Screen) -> None:
    assert take(screen, {"event": "from a later release", "clock": 1.0}) == []


def test_every_step_has_words() -> None:
    solves = {name for name in _entry.STEP_NAMES if name.startswith("reference_")}
    assert set(_screen._DOING) == set(_entry.STEP_NAMES) - solves


def test_what_asks_all_workers_says_how_far_it_is(screen: Screen) -> None:
    """Also where no callback says which task it is, as under AWX."""
    assert take(screen, {"event": "asking", "done": "staged", "number": 3, "of": 100, "clock": 10.0}) == []
    assert heartbeat(screen, 12.0) == "3 of 100 workers staged, 2 s"
    take(screen, {"event": "asking", "done": "staged", "number": 60, "of": 100, "clock": 40.0})
    assert _screen.block(screen, 41.0, 80, 24) == ["60 of 100 workers staged, 31 s"]
    screen.began = 30.0
    assert _screen.block(screen, 41.0, 80, 24)[-1] == "  60 of 100 workers staged, 31 s"
    take(screen, {"event": "asking", "done": "staged", "number": 100, "of": 100, "clock": 50.0})
    assert heartbeat(screen, 51.0) == ""
    take(screen, {"event": "asking", "done": "locked", "number": 1, "of": 100, "clock": 60.0})
    assert heartbeat(screen, 61.0) == "1 of 100 workers locked, 1 s"


def test_after_a_wait_for_another_rollout_the_heartbeat_goes_on(screen: Screen) -> None:
    take(screen, {"event": "waiting", "reason": "run x holds w1", "clock": 1.0})
    take(screen, {"event": "looked", "answering": 2, "of": 2, "clock": 2.0})
    take(screen, {"event": "asking", "done": "staged", "number": 1, "of": 2, "clock": 3.0})
    assert heartbeat(screen, 4.0) == "1 of 2 workers staged, 1 s"


def test_after_the_verdict_it_says_how_many_are_given_back(screen: Screen) -> None:
    screen.began, screen.waits, screen.task = 1.0, "for the floor", "Give the verdict"
    take(screen, {"event": "verdict", "verdict": "completed", "clock": 9.0})
    assert (heartbeat(screen, 10.0), _screen.block(screen, 10.0, 80, 24)) == ("", [])
    take(screen, {"event": "asking", "done": "given back", "number": 30, "of": 100, "clock": 11.0})
    assert heartbeat(screen, 12.0) == "30 of 100 workers given back, 1 s"
    assert _screen.block(screen, 12.0, 80, 24) == ["30 of 100 workers given back, 1 s"]


def test_the_block_shows_who_is_at_what_and_fits(screen: Screen) -> None:
    from ansible_collections.solver.fleet.plugins.plugin_utils._screen import block

    assert block(screen, 9.0, 80, 24) == [], "nobody has begun"
    screen.task, screen.task_began = "Bring the wheels\x1b[2J", 4.0
    assert block(screen, 9.0, 80, 24) == ["Bring the wheels?[2J, 5 s"]
    assert heartbeat(screen, 34.0) == "Bring the wheels?[2J, 30 s"
    take(screen, PLANNED | {"window": 1, "floor": 1, "tolerated": 1, "p99_s": {"w1": 50.0},
                            "stages": [{"workers": ["w1", "w2"]}]})
    take(screen, event("admitted"))
    take(screen, event("program_begun", steps=["drain", "switch"]))
    take(screen, event("progress", step="drain", ok=False, remaining={"open": 5, "oldest_age_s": 20.0}))
    assert block(screen, 22.0, 120, 40) == [
        "0/2 done | 1/2 serve (floor 1) | 0 failed (1 may) | 12 s, about 28 s left",
        "  w1           drains, 5 tasks open, 12 s, oldest 20 s, mostly done in 30 s"]
    take(screen, event("seen", "w2", serves=False))
    assert "0/2 serve" in block(screen, 22.0, 120, 40)[0]
    take(screen, event("seen", "w2", serves=True))
    take(screen, outcome("reverted", cause="release", reason="x\x1b[2J"))
    assert "1/2 done | 2/2 serve (floor 1) | 1 failed" in block(screen, 22.0, 120, 40)[0]
    take(screen, outcome("quarantined", "w2", cause="release", reason="x"))
    assert "1/2 serve" in block(screen, 22.0, 120, 40)[0], "it serves no more"
    many = Screen(began=1.0, order=[f"w{n}" for n in range(200)], fleet=200)
    many.turns = {f"w{n}\x1b": _screen.Turn(1.0) for n in range(60)}
    lines = block(many, 2.0, 80, 24)
    assert len(lines) <= 12
    assert max(map(len, lines)) < 80
    assert lines[-1] == "  and 50 more"
    assert all(line.isprintable() for line in lines)


def test_a_comparison_is_said_and_goes_on_in_the_heartbeat():
    screen = _screen.Screen()
    assert _screen.take(screen, {"event": "bake", "reason": "1 canary solved 5 of 5"}) == [
        "canaries are compared: 1 canary solved 5 of 5"]
    assert "1 canary solved 5 of 5" in _screen.heartbeat(screen, 1.0)
    assert _screen.take(screen, {"event": "judged", "word": "promote", "reason": "as good"}) == [
        "canaries: promote, as good"]
    assert _screen.heartbeat(screen, 1.0) == ""


def test_a_line_is_broken_between_words_where_a_terminal_is_narrow():
    text = "  to stop it: pause.yml or abort.yml, in another terminal"
    assert _screen.folded(text, 41) == ["  to stop it: pause.yml or abort.yml, in", "    another terminal"]
    assert _screen.folded(text, 200) == [text]
    assert _screen.folded("", 80) == [""]
    assert _screen.folded("x" * 100, 41) == ["x" * 40, "  " + "x" * 38, "  " + "x" * 22]
    assert max(map(len, _screen.folded(text, 1))) <= 20
