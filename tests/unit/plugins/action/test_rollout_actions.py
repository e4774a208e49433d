# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of a rollout over a real ledger, with hosts that answer by a script."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from action_kit import Hosts, ledger_of, made
from ansible_collections.solver.fleet.plugins.action import (
    rollout_back,
    rollout_claim,
    rollout_gate,
    rollout_hook_failed,
    rollout_look,
    rollout_plan,
    rollout_verdict,
    worker_turn,
)
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _gate, _turn, _view
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _fanout, _run
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import Ledger, document_of
from entry_kit import LOCK, census, lock_answer, staged, status
from rollout_kit import fleet, plan, updated

NAMES = ["w1", "w2", "w3", "w4"]
GONE = {"unreachable": True, "msg": "no route"}


@pytest.fixture(autouse=True)
def _nothing_waits_for_ever() -> Iterator[None]:
    def late(_number: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def record_of(ledger: Ledger, event: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in Path(ledger.events).read_text().splitlines()]
    return [own for own in events if own["event"] == event]


def run(
    kind: Any, ledger: Ledger, check_mode: bool = False, task_vars: dict[str, Any] | None = None, **args: Any,
) -> Any:
    action = made(kind.ActionModule, {"ledger": str(ledger.folder), **args}, check_mode)
    return action.run(None, task_vars or {})


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hosts]:
    def scripted(**answers: Any) -> Hosts:
        caller = Hosts(**answers)
        monkeypatch.setattr(_run, "run_everywhere", caller)
        return caller

    return scripted


# -- look and plan -----------------------------------------------------------------------------


def test_a_look_keeps_what_everybody_says_and_asks_the_silent_once_more(tmp_path, hosts):
    ledger = ledger_of(tmp_path, NAMES)
    asked = hosts(worker_info=[{"w1": census(), "w2": GONE, "w3": GONE, "w4": census()}, {"w2": census(), "w3": GONE}])
    said = run(rollout_look, ledger)
    assert (said["answering"], said["locked"], said["changed"]) == (["w1", "w2", "w4"], [], False)
    assert sorted(asked.calls[1][1]) == ["w2", "w3"], "who is silent is asked once more before it is called lost"
    assert ledger.read("census")["w3"]["unreachable"] is True
    assert asked.calls[0][1]["w1"]["control_socket"] == "/w1/control.sock"


FOUND = {"discovered_interpreter_python": "/usr/bin/python3.11"}


def test_an_interpreter_is_remembered_as_long_as_it_works(tmp_path, hosts):
    ledger = ledger_of(tmp_path, NAMES)
    found = {**census(), "ansible_facts": FOUND}
    crashed = {"failed": True, "unreachable": True, "msg": "x", "module_stdout": "", "ansible_facts": FOUND}
    hosts(worker_info=[{"w1": found, "w2": crashed, "w3": GONE, "w4": census()}, {"w2": crashed, "w3": found}])
    run(rollout_look, ledger)
    python = FOUND["discovered_interpreter_python"]
    assert ledger.read("pythons") == {"w1": python, "w3": python}
    gone: list[Any] = []

    def again(host: str, _args: Any) -> Any:
        return GONE if host == "w1" and not gone and not gone.append(host) else census()

    hosts(worker_info=again)
    run(rollout_look, ledger)
    assert ledger.read("pythons") == {"w3": python}, "who is silent may have another one by now"
    assert "python" not in json.dumps(ledger.read("census"))


def test_how_far_a_call_to_all_is_is_said_now_and_then(tmp_path, monkeypatch, capsys):
    ledger = ledger_of(tmp_path, NAMES)
    action = made(rollout_look.ActionModule, {"ledger": str(ledger.folder)})
    action.begin(None, {})
    clock, lines = [100.0], []
    monkeypatch.setattr(_run.time, "monotonic", lambda: clock[0])
    action.tell = lines.append
    say = action.progress("locked", 100)
    for after, number in ((0.4, 10), (0.8, 20), (0.1, 25), (15.0, 60), (0.3, 70), (16.0, 100)):
        clock[0] += after
        say(number)
    told = [(own["done"], own["number"], own["of"]) for own in record_of(ledger, "asking")]
    assert told == [("locked", number, 100) for number in (20, 60, 100)]
    assert lines == ["60 of 100 workers locked"]
    quick = action.progress("locked", 3)
    quick(3)
    assert len(record_of(ledger, "asking")) == 3, "what is over at once is not worth a word"


def test_a_look_does_not_wait_where_nobody_wants_to(tmp_path, hosts):
    hosts(worker_info=lambda _host, _args: census(dict(LOCK)))
    said = run(rollout_look, ledger_of(tmp_path, NAMES))
    assert said["locked"]
    assert "holds w1, w2, w3, w4" in said["msg"]


def test_a_look_waits_for_another_rollout_to_end(tmp_path, hosts, monkeypatch):
    ledger = ledger_of(tmp_path, NAMES)
    rollout = ledger.read("rollout")
    ledger.keep("rollout", {**rollout, "wait_until": time.monotonic() + 60})
    held = {name: census(dict(LOCK)) for name in NAMES}
    hosts(worker_info=[held, held, {name: census() for name in NAMES}])
    slept: list[float] = []
    monkeypatch.setattr(rollout_look.time, "sleep", slept.append)
    assert run(rollout_look, ledger)["locked"] == []
    assert len(slept) == len(record_of(ledger, "waiting")) == 2


def keep_staged(ledger: Ledger, **special: Any) -> None:
    ledger.keep("staged", {name: special.get(name, staged()) for name in NAMES})


def test_a_plan_is_kept_and_said(tmp_path, hosts):
    ledger = ledger_of(tmp_path, NAMES)
    hosts(worker_info=lambda _host, _args: {**census(), "lock_state": "free", "rollout": None})
    run(rollout_look, ledger)
    keep_staged(ledger)
    said = run(rollout_plan, ledger)
    assert (said["refused"], said["todo"], said["target"], said["rollout_id"]) == (False, 4, "1.3.0", "r1")
    assert ledger.read("plan")["order"] == NAMES
    assert record_of(ledger, "planned")[0]["window"] == 1
    assert not ledger.read("roll"), "a plan alone is followed by nobody"


def test_a_refused_plan_is_kept_by_nobody_and_says_why(tmp_path, hosts):
    ledger = ledger_of(tmp_path, NAMES, solver_verdict_file=str(tmp_path / "verdict.json"))
    hosts(worker_info=lambda _host, _args: {**census(), "lock_state": "free", "rollout": None})
    run(rollout_look, ledger)
    bad = {"failed": True, "msg": "no such version", "failure": {"code": "pip_failed"}}
    keep_staged(ledger, w2=bad)
    said = run(rollout_plan, ledger)
    assert (said["refused"], said["again"]) == (True, False)
    assert said["msg"].startswith("Refusing to begin, nothing was drained: w2: no such version")
    assert ledger.read("plan") == {}
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "refused"


# -- claim ------------------------------------------------------------------------------------


OURS = {**lock_answer(), "ours": True}
HELD = {"failed": True, "ours": False, "msg": "ada holds it", "failure": {"code": "held", "message": "ada holds it"}}


def planned(tmp_path: Path, **settings: Any) -> Ledger:
    ledger = ledger_of(tmp_path, NAMES, **settings)
    ledger.keep("plan", plan(fleet(4)))
    return ledger


def test_the_lock_is_taken_from_the_first_before_all_others(tmp_path, hosts):
    ledger = planned(tmp_path, solver_verdict_file=str(tmp_path / "verdict.json"))
    asked = hosts(rollout_lock=lambda _host, _args: OURS)
    said = run(rollout_claim, ledger)
    assert (said["refused"], said["changed"]) == (False, True)
    assert [sorted(args) for _module, args in asked.calls] == [["w1"], ["w2", "w3", "w4"]]
    claim = asked.calls[1][1]["w2"]
    assert (claim["state"], claim["run_id"], claim["expected_seq"]) == ("held", "run1", 0)
    assert (claim["from_release"], claim["to_release"], claim["target"]) == ("1.2.0-old", "1.3.0-new", "1.3.0")
    assert ledger.read("roll")["phase"] == {}
    assert set(ledger.read("view")) == set(NAMES)
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "interrupted"


def test_whoever_comes_second_takes_nothing_and_may_begin_again(tmp_path, hosts):
    ledger = planned(tmp_path)
    asked = hosts(rollout_lock=lambda _host, _args: HELD)
    said = run(rollout_claim, ledger)
    assert (said["refused"], said["again"]) == (True, False), "nobody wants to wait"
    assert "w1: ada holds it" in said["msg"]
    assert [sorted(args) for _module, args in asked.calls] == [["w1"], []]
    assert not ledger.read("roll")
    ledger.keep("rollout", {**ledger.read("rollout"), "wait_until": time.monotonic() + 60})
    assert run(rollout_claim, ledger)["again"] is True


def test_what_was_taken_is_given_back_where_one_refuses(tmp_path, hosts):
    ledger = planned(tmp_path)

    def answer(host: str, args: dict[str, Any]) -> dict[str, Any]:
        return HELD if host == "w3" and args["state"] == "held" else OURS

    asked = hosts(rollout_lock=answer)
    assert run(rollout_claim, ledger)["refused"]
    _module, args = asked.calls[-1]
    assert {name: own["state"] for name, own in args.items()} == dict.fromkeys(["w1", "w2", "w4"], "released")
    assert asked.mains == [os.getppid(), os.getppid(), 0], "the lock is given back to the end, whoever is gone"


def test_one_that_is_left_alone_is_locked_without_a_release_to_remember(tmp_path, hosts):
    ledger = ledger_of(tmp_path, NAMES)
    ledger.keep("plan", plan(fleet(4, w4=updated()), solver_exclude=["w3"]))
    asked = hosts(rollout_lock=lambda _host, _args: OURS)
    run(rollout_claim, ledger)
    claims = {name: own for _module, args in asked.calls for name, own in args.items()}
    assert sorted(name for name, own in claims.items() if "to_release" in own) == ["w1", "w2"]


def test_a_verdict_file_that_cannot_be_written_keeps_no_lock(tmp_path, hosts):
    (tmp_path / "file").write_text("")
    ledger = planned(tmp_path, solver_verdict_file=str(tmp_path / "file" / "verdict.json"))
    asked = hosts(rollout_lock=lambda _host, _args: OURS)
    said = run(rollout_claim, ledger)
    assert (said["refused"], said["again"]) == (True, False)
    assert "(solver_verdict_file)" in said["msg"]
    assert {name: own["state"] for name, own in asked.calls[-1][1].items()} == dict.fromkeys(NAMES, "released")
    assert not ledger.read("roll")


def test_who_is_lost_while_it_is_locked_has_no_turn_and_closes_no_gate(tmp_path, hosts):
    ledger = planned(tmp_path)
    asked = hosts(rollout_lock=lambda host, _args: GONE if host == "w3" else OURS,
                  worker_info=lambda _host, _args: census())
    assert run(rollout_claim, ledger)["refused"] is False
    made, state = ledger.read("plan"), ledger.read("roll")
    assert [stage["workers"] for stage in made["stages"]] == [["w1", "w2", "w4"]]
    assert (made["lock"]["workers"], made["lock"]["unsure"]) == (["w1", "w2", "w4"], ["w3"])
    assert (state["brief"]["w3"]["outcome"], state["phase"], set(ledger.read("view"))) == (
        "unreachable", {}, {"w1", "w2", "w4"})
    assert _gate.spent_by(made, state["brief"]) == ["w3"], "it counts against the budget"
    document = run(rollout_verdict, ledger)["verdict"]
    own = next(one for one in document["workers"] if one["name"] == "w3")
    assert (own["outcome"], own["cause"]) == ("unreachable", "host")
    assert own["reason"] == "it was lost while the lock was taken: no route"
    assert "w3" in asked.calls[-1][1], "the lock may be ours there: only the answer may have been lost"


def test_who_has_no_turn_is_asked_again_when_it_was_lost_while_it_was_locked(tmp_path, hosts):
    ledger = planned(tmp_path)
    ledger.keep("plan", plan(fleet(4, w3=updated(), w4=updated())))
    hosts(rollout_lock=lambda host, _args: GONE if host in ("w2", "w3") else OURS)
    lock = ledger.read("plan")["lock"]
    ledger.keep("plan", {**ledger.read("plan"), "lock": {**lock, "needed": 2}})
    assert run(rollout_claim, ledger)["refused"] is False
    assert (ledger.read("plan")["lock"]["workers"], set(ledger.read("roll")["brief"])) == (["w1", "w3", "w4"], {"w2"})
    assert ledger.read("view")["w3"]["unreachable"], "silent once more, and it counts"


def test_the_canaries_are_compared_without_whom_was_lost_while_it_was_locked(tmp_path, hosts):
    ledger = planned(tmp_path)
    ledger.keep("plan", plan(fleet(4), solver_strategy="canary"))
    hosts(rollout_lock=lambda host, _args: GONE if host == "w3" else OURS)
    assert run(rollout_claim, ledger)["refused"] is False
    assert ledger.read("plan")["bake"]["control"] == ["w2", "w4"]


def test_no_rollout_begins_without_its_canary(tmp_path, hosts):
    ledger = planned(tmp_path)
    made = plan(fleet(4), solver_strategy="canary")
    ledger.keep("plan", {**made, "lock": {**made["lock"], "leader": "w4"}})
    hosts(rollout_lock=lambda _host, _args: HELD)
    assert "canary" not in run(rollout_claim, ledger)["msg"], "it was not asked"
    hosts(rollout_lock=lambda _host, _args: GONE)
    assert "only 0 of the fleet's workers could be locked" in run(rollout_claim, ledger)["msg"], "nor here"
    asked = hosts(rollout_lock=lambda host, _args: GONE if host == "w1" else OURS)
    said = run(rollout_claim, ledger)
    assert "w1 was to be a canary, and was lost while the lock was taken: no route; run the" in said["msg"]
    released = {name for _module, args in asked.calls for name, own in args.items() if own["state"] == "released"}
    assert released == set(NAMES)


# -- gate -------------------------------------------------------------------------------------


class Calls:
    """No processes: an answer is there with the next tick."""

    def __init__(self, **_more: Any) -> None:
        self.waiting: dict[str, Any] = {}

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_why: object) -> None:
        """Leave nothing."""

    def add(self, host: str, look: Callable[[], Any]) -> None:
        self.waiting[host] = look

    def collect(self, _wait: float) -> dict[str, Any]:
        waiting, self.waiting = self.waiting, {}
        return {host: look() for host, look in waiting.items()}


RENEWED = {**OURS, "census": {"finding": "answering", "worker": status()}}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask the gate for a worker; ANSWERS are what the others say, in the order in which they are asked."""
    monkeypatch.setattr(rollout_gate, "Calls", Calls)

    def ask(ledger: Ledger, worker: str, answers: Callable[[str], Any] = lambda _host: RENEWED, **args: Any) -> Any:
        def look(_action: Any, _vars: Any, host: str, module: str, _args: Any) -> Callable[[], Any]:
            assert module == "solver.fleet.rollout_lock"
            return lambda: answers(host)

        monkeypatch.setattr(rollout_gate, "call_on", look)
        return run(rollout_gate, ledger, worker=worker, **args)

    return ask


def rolling(tmp_path: Path, size: int = 4, **settings: Any) -> Ledger:
    """A run that holds the lock and has just seen everybody serve."""
    names = [f"w{number}" for number in range(1, size + 1)]
    own = {**settings}
    window = own.pop("window", 1)
    ledger = ledger_of(tmp_path, names, plan(fleet(size), window=window, **own), **own)
    now = time.monotonic()
    ledger.keep("roll", _admit.begin(now))
    ledger.keep("view", {name: _view.seen(RENEWED, now) for name in names})
    return ledger


def test_the_first_is_admitted_by_what_the_lock_saw(tmp_path, gate):
    ledger = rolling(tmp_path)
    said = gate(ledger, "w1", lambda host: pytest.fail(f"{host} was asked again"))
    assert (said["open"], said["begins_stage"], said["ends_stage"], said["changed"]) == (True, True, False, False)
    assert ledger.read("roll")["phase"] == {"w1": "turn"}
    assert ledger.read("roll")["begun"] == [0]
    admitted, = record_of(ledger, "admitted")
    assert (admitted["worker"], admitted["stage"], admitted["flight"]) == ("w1", 1, ["w1"])


def test_an_old_view_is_refreshed_before_it_decides(tmp_path, gate):
    ledger = rolling(tmp_path)
    ledger.keep("view", {name: _view.seen(RENEWED, time.monotonic() - 100) for name in NAMES})
    asked: list[str] = []

    def answer(host: str) -> Any:
        asked.append(host)
        return RENEWED

    assert gate(ledger, "w1", answer)["open"]
    assert sorted(asked) == NAMES


def test_a_lost_lock_closes_the_gate_for_all(tmp_path, gate):
    ledger = rolling(tmp_path)
    ledger.keep("view", {})
    lost = {"failed": True, "msg": "x", "failure": {"code": "lock_lost", "message": "run x holds it"}}
    said = gate(ledger, "w1", lambda host: lost if host == "w1" else RENEWED)
    assert (said["open"], said["cause"], said["ends_stage"]) == (False, "lock", False)
    assert ledger.read("roll")["closed"]["cause"] == "lock"
    assert gate(ledger, "w2")["cause"] == "lock", "for ever"
    assert len(record_of(ledger, "closed")) == 1


def test_one_that_is_silent_once_is_asked_again_and_then_counts_as_lost(tmp_path, gate):
    ledger = rolling(tmp_path, solver_max_fail_percentage=0.0)
    with ledger.edit("roll") as state:
        state["phase"], state["begun"] = {"w1": "left"}, [0]
        state["brief"] = {"w1": {"outcome": "updated", "cause": None, "reason": "", "step": None}}
    view = ledger.read("view")
    ledger.keep("view", {**view, "w1": {"at": time.monotonic() - 5, "unreachable": True, "silent": 1, "msg": "x"}})
    said = gate(ledger, "w2", lambda host: GONE if host == "w1" else RENEWED)
    assert (said["open"], said["cause"]) == (False, "budget")
    assert ledger.read("view")["w1"]["silent"] == 2


def test_a_closed_gate_ends_the_stage_of_which_nobody_is_at_work(tmp_path, gate):
    ledger = rolling(tmp_path)
    with ledger.edit("roll") as state:
        state["phase"], state["begun"] = {"w1": "left"}, [0]
        state["closed"] = {"cause": "budget", "reason": "x"}
    assert gate(ledger, "w2")["ends_stage"] is True
    assert gate(ledger, "w3")["ends_stage"] is False


def test_the_gate_waits_for_its_turn_and_ends_when_the_controller_is_gone(tmp_path, gate, monkeypatch):
    ledger = rolling(tmp_path)
    parent = os.getppid()
    monkeypatch.setattr(_run.os, "getppid", iter([parent, parent, 1]).__next__)
    said = gate(ledger, "w2")
    assert said["failed"]
    assert ledger.read("roll")["phase"] == {}


def test_on_the_way_back_the_whole_fleet_counts(tmp_path, gate):
    """w3 does not go back and is lost; w4 is out of service by itself and takes the window."""
    ledger = rolling(tmp_path, solver_max_fail_percentage=0.0)
    ended(ledger, "w1", "updated")
    ended(ledger, "w2", "reverted", "release")
    assert run(rollout_back, ledger)["workers"] == ["w1"]
    now = time.monotonic()
    lost = {"at": now, "unreachable": True, "silent": 2, "msg": "x"}
    ledger.keep("view", {**ledger.read("view"), "w3": lost, "w1": _view.seen(RENEWED, now)})
    assert gate(ledger, "w1", part="back")["open"]
    ledger.keep("back", {**_admit.begin(now - 1000), "begun": [0]})
    out = {"at": now, "census": {"worker": {"state": "failed", "drain": False}}}
    ledger.keep("view", {**ledger.read("view"), "w4": out})
    assert not gate(ledger, "w1", part="back")["open"]


# -- hooks ------------------------------------------------------------------------------------


def test_a_failed_hook_before_a_stage_closes_the_gate_and_the_worker_it_was_for_is_as_it_was(tmp_path, gate):
    ledger = rolling(tmp_path, solver_hooks={"before_stage": "/x"})
    assert gate(ledger, "w1")["begins_stage"]
    assert ledger.read("roll")["begun"] == [], "its hook runs first"
    run(rollout_hook_failed, ledger, hook="before_stage", task="Silence", reason="401\x1b[2J")
    said = run(worker_turn, ledger, worker="w1")
    assert (said["outcome"], said["ends_stage"], said["changed"]) == ({}, False, False)
    assert ledger.read("roll")["phase"] == {}
    closed = gate(ledger, "w2")
    assert (closed["open"], closed["cause"], closed["ends_stage"]) == (False, "hook", False)
    failure, = record_of(ledger, "hook_failed")
    assert (failure["hook"], failure["stops"], failure["reason"]) == ("before_stage", True, "401 [2J")


@pytest.mark.parametrize(("hook", "going_back", "stops"), [
    ("before_stage", False, True), ("before_worker", False, True), ("after_stage", False, False),
    ("before_stage", True, False), ("on_failure", False, False)])
def test_only_a_hook_before_something_that_goes_forward_stops_it(tmp_path, hook, going_back, stops):
    ledger = rolling(tmp_path)
    run(rollout_hook_failed, ledger, hook=hook, going_back=going_back, worker="w1" if "worker" in hook else "")
    assert ledger.read("roll")["hooks"][0]["stops"] is stops


def test_a_failed_hook_before_the_first_worker_of_a_stage_does_not_keep_the_others_waiting(tmp_path, gate):
    ledger = rolling(tmp_path, solver_hooks={"before_stage": "/x", "before_worker": "/y"})
    assert gate(ledger, "w1")["open"]
    run(rollout_hook_failed, ledger, hook="before_worker", worker="w1", reason="no")
    said = run(worker_turn, ledger, worker="w1")
    assert (said["outcome"]["outcome"], said["outcome"]["cause"]) == ("failed", "hook")
    assert _admit.waits_for(ledger.read("plan"), ledger.read("roll"), "w2") == ""


# -- turn -------------------------------------------------------------------------------------


UPDATED = {"outcome": "updated", "cause": None, "reason": "", "step": None, "from": "1.2.0", "to": "1.3.0",
           "timings": {"drain": 1.0}, "open_at_drain": 3, "log": ["x"]}


def said(outcome: Any) -> Any:
    """Return what a turn says, or raise what it dies of."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class FakeTurn:
    """Stands for a turn: what it does to its world, and how it ends."""

    outcome: Any = UPDATED
    answer: ClassVar[Any] = {"census": {"worker": status("1.3.0", "1.3.0-new")}}
    work: Callable[[Any], None] = staticmethod(lambda _world: None)

    def __init__(self, _worker: Any, world: Any) -> None:
        self.world = world

    def run(self) -> Any:
        type(self).work(self.world)
        return said(self.outcome)

    def last_answer(self) -> Any:
        return self.answer


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def take(ledger: Ledger, worker: str, part: str = "roll", **special: Any) -> Any:
        kind = type("Scripted", (FakeTurn,), special)
        monkeypatch.setattr(worker_turn, "Turn", kind)
        return run(worker_turn, ledger, worker=worker, part=part)

    return take


def test_no_stage_behind_the_canaries_begins_without_a_judgement(tmp_path, gate):
    """Also not the one after the next, where the gate that should have waited could not."""
    ledger = rolling(tmp_path, size=3)
    made = ledger.read("plan")
    stage = {"there": [], "window": 1, "tolerated": 0, "after": "nothing"}
    made["stages"] = [{**stage, "workers": ["w1"], "after": "bake"}, {**stage, "workers": ["w2"]},
                      {**stage, "workers": ["w3"]}]
    judged = {"word": "inconclusive", "reason": "too few tasks", "at": "2026-11-29T00:00:00Z"}
    made["bake"] = {"canaries": ["w1"], "control": ["w2", "w3"], "min_tasks": 1, "bake_s": 1.0, "max_s": 2.0,
                    "needs_s": None, "least_s": None, "traffic": "", "judged": judged, "baselines": {}}
    ledger.keep("plan", made)
    with ledger.edit("roll") as state:
        state["phase"], state["begun"] = {"w1": "left", "w2": "left"}, [0, 1]
    said = gate(ledger, "w3")
    assert not said["open"]
    assert "too few tasks" in said["reason"]


def test_a_mistake_of_ours_at_the_gate_closes_it_for_all(tmp_path, gate):
    """One that fails open would let the next stage begin without a judgement, or leave the others waiting for ever."""
    ledger = rolling(tmp_path, size=3)
    ledger.keep("view", {name: _view.seen(RENEWED, time.monotonic() - 60.0) for name in ("w1", "w2", "w3")})

    def answer(_host: str) -> Any:
        raise OSError("no space")

    said = gate(ledger, "w1", answer)
    assert not said["open"]
    assert "please report it" in said["reason"]
    assert ledger.read("roll")["closed"]["cause"] == "unknown"
    assert not gate(ledger, "w2")["open"]


def test_how_long_a_look_takes_is_known_from_the_gates_before(tmp_path, gate):
    """On a slow machine each worker would wait anew for looks that are never fresh enough."""
    ledger = rolling(tmp_path, size=3)
    ledger.keep("view", {name: _view.seen(RENEWED, time.monotonic() - 9.0) for name in ("w1", "w2", "w3")})
    asked: list[str] = []

    def answer(host: str) -> Any:
        asked.append(host)
        return RENEWED

    assert gate(ledger, "w1", answer)["open"]
    assert len(asked) == 2
    assert ledger.read("looks")["mean_s"] < 1.0
    ledger.keep("view", {name: _view.seen(RENEWED, time.monotonic() - 9.0) for name in ("w1", "w2", "w3")})
    ledger.keep("looks", {"mean_s": 8.0})
    with ledger.edit("roll") as state:
        state["phase"]["w1"] = "left"
    assert gate(ledger, "w2", answer)["open"]
    assert len(asked) == 2, "three such looks are 24 s"


def test_a_turn_leaves_the_window_with_its_outcome_and_what_the_worker_said_last(tmp_path, gate, turn):
    ledger = rolling(tmp_path)
    before = ledger.read("roll")["healthy_at"]
    gate(ledger, "w1")
    said = turn(ledger, "w1")
    state = ledger.read("roll")
    assert said["changed"]
    assert said["outcome"]["log"] == ["x"]
    assert said["ends_stage"] is False
    assert state["phase"] == {"w1": "left"}
    assert state["brief"]["w1"] == {"outcome": "updated", "cause": None, "reason": "", "step": None}
    assert state["healthy_at"] > before, "each worker that is back resets the progress deadline"
    assert ledger.read("view")["w1"]["census"]["worker"] == {"state": "running", "drain": False}
    outcome, = record_of(ledger, "outcome")
    assert (outcome["worker"], outcome["to"], outcome["open_at_drain"]) == ("w1", "1.3.0", 3)


def test_one_that_failed_resets_no_deadline_and_the_last_of_a_stage_ends_it(tmp_path, turn):
    ledger = rolling(tmp_path, size=1)
    with ledger.edit("roll") as state:
        state["begun"] = [0]
    before = ledger.read("roll")["healthy_at"]
    failed = {**UPDATED, "outcome": "failed", "cause": "drain", "reason": "x"}
    assert turn(ledger, "w1", outcome=failed)["ends_stage"] is True
    assert ledger.read("roll")["healthy_at"] == before
    assert ledger.read("roll")["ended"] == [0]


def test_a_lost_worker_is_silent_once_in_the_view_and_one_that_said_nothing_of_itself_is_unknown(tmp_path, turn):
    ledger = rolling(tmp_path)
    turn(ledger, "w1", answer={"unreachable": True})
    turn(ledger, "w2", answer={})
    view = ledger.read("view")
    assert (view["w1"]["unreachable"], view["w1"]["silent"]) == (True, 1)
    assert "w2" not in view, "the gate must not decide by what it said before its turn"


def test_a_mistake_of_ours_costs_the_others_no_verdict(tmp_path, turn):
    ledger = rolling(tmp_path)
    said = turn(ledger, "w1", outcome=KeyError("odd"))
    assert (said["outcome"]["outcome"], said["outcome"]["step"]) == ("unknown", "turn")
    assert "please report it" in said["outcome"]["reason"]
    assert ledger.read("roll")["phase"] == {"w1": "left"}


@pytest.mark.parametrize("where", ["keep", "edit"])
def test_a_ledger_that_cannot_be_written_costs_the_others_no_verdict(tmp_path, hosts, turn, monkeypatch, where):
    """A task that fails in a stage of one worker would end the play, with it the way back, and leave the lock."""
    ledger, whole = rolling(tmp_path), getattr(Ledger, where)
    full: list[int] = [1]

    def broken(self: Ledger, name: str, *document: Any) -> Any:
        if name in (document_of("roll", "w1"), "roll") and full and full.pop():
            raise OSError(28, "No space left on device")
        return whole(self, name, *document)

    monkeypatch.setattr(Ledger, where, broken)
    said = turn(ledger, "w1")
    assert not said.get("failed")
    assert (said["outcome"]["outcome"], said["outcome"]["cause"]) == ("unknown", "unknown")
    assert "the ledger on the controller: [Errno 28] No space left" in said["msg"]
    state = ledger.read("roll")
    assert (state["phase"], state["closed"]["cause"], state["brief"]["w1"]["outcome"]) == (
        {"w1": "left"}, "unknown", "unknown")
    assert [own["worker"] for own in record_of(ledger, "outcome")] == ["w1"], "nobody shows it as at work"
    hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    own = run(rollout_verdict, ledger)["verdict"]["workers"][0]
    assert (own["outcome"], own["reason"][:28]) == ("unknown", "the ledger on the controller")


def test_the_last_of_a_stage_ends_it_whatever_became_of_the_ledger(tmp_path, turn, monkeypatch):
    ledger = rolling(tmp_path, size=1)
    monkeypatch.setattr(worker_turn.ActionModule, "_leave", lambda *_args: said(OSError(28, "No space left")))
    assert turn(ledger, "w1")["ends_stage"] is True, "else the hook after it never runs"


def test_hooks_that_take_long_before_a_stage_are_nobodys_delay(tmp_path, gate, turn):
    ledger = rolling(tmp_path)
    ago = time.monotonic() - 10_000
    with ledger.edit("roll") as state:
        state["healthy_at"] = ago
    assert gate(ledger, "w1")["open"]
    with ledger.edit("roll") as state:
        state.update(healthy_at=ago, begun=[])
    failed = {**UPDATED, "outcome": "failed", "cause": "drain", "reason": "x"}
    turn(ledger, "w1", outcome=failed)  # its hook before the stage took as long
    assert gate(ledger, "w2")["open"]
    with ledger.edit("roll") as state:
        state.update(healthy_at=ago, phase={"w1": "left", "w2": "left"})
    assert "no worker became healthy for 1" in gate(ledger, "w3")["reason"], "but where a stage has begun it is"


def test_a_turn_whose_controller_is_gone_writes_nothing_down(tmp_path, gate, turn):
    ledger = rolling(tmp_path)
    gate(ledger, "w1")
    assert turn(ledger, "w1", outcome=_turn.GoneError())["failed"]
    assert ledger.read("roll")["phase"] == {"w1": "turn"}


def test_who_serves_leaves_the_window_and_who_must_go_back_waits_for_a_place(tmp_path, gate, turn, monkeypatch):
    ledger = rolling(tmp_path)
    gate(ledger, "w1")
    phases: list[Any] = []
    ticks: list[float] = []

    def sleep(seconds: float) -> None:
        """While it waits, the one in flight leaves."""
        ticks.append(seconds)
        phases.append(ledger.read("roll")["phase"])
        if len(ticks) == 2:
            with ledger.edit("roll") as state:
                state["phase"]["w2"] = "left"

    monkeypatch.setattr(worker_turn.time, "sleep", sleep)

    def work(world: Any) -> None:
        world.serves_again(FakeTurn.answer)
        phases.append(ledger.read("roll")["phase"])
        assert gate(ledger, "w2")["open"]
        world.await_place_to_leave(FakeTurn.answer)
        phases.append(ledger.read("roll")["phase"])

    turn(ledger, "w1", work=staticmethod(work))
    assert phases == [{"w1": "soak"}, *[{"w1": "again", "w2": "turn"}] * 2, {"w1": "turn", "w2": "left"}]
    assert [own["worker"] for own in record_of(ledger, "serves")] == ["w1"]


def test_who_must_go_back_does_not_wait_for_a_place_that_is_never_given_back(tmp_path, gate, turn):
    ledger = rolling(tmp_path, solver_progress_deadline=0.05)
    gate(ledger, "w1")

    def work(world: Any) -> None:
        world.serves_again(FakeTurn.answer)
        with ledger.edit("roll") as state:
            state["phase"]["w2"] = "turn"  # its hook ends its host: nothing will ever come of it
        world.await_place_to_leave(FakeTurn.answer)
        assert ledger.read("roll")["phase"] == {"w1": "turn", "w2": "turn"}

    assert turn(ledger, "w1", work=staticmethod(work))["outcome"] == UPDATED


def test_one_that_serves_does_not_leave_again_below_the_floor(tmp_path, gate, turn, monkeypatch):
    """Another worker is out: its place in the window is free, but with both out fewer than the floor would serve."""
    ledger = rolling(tmp_path)
    gate(ledger, "w1")
    with ledger.edit("view") as view:
        view["w3"] = {**view["w3"], "census": {"worker": {"state": "failed", "drain": False}}}
    ticks: list[float] = []

    def sleep(seconds: float) -> None:
        """While it waits, the other one comes back."""
        ticks.append(seconds)
        assert ledger.read("roll")["phase"]["w1"] == "again"
        if len(ticks) == 2:
            with ledger.edit("view") as view:
                view["w3"] = {**view["w3"], "census": {"worker": {"state": "running", "drain": False}}}

    monkeypatch.setattr(worker_turn.time, "sleep", sleep)

    def work(world: Any) -> None:
        world.serves_again(FakeTurn.answer)
        world.await_place_to_leave(FakeTurn.answer)

    turn(ledger, "w1", work=staticmethod(work))
    assert len(ticks) == 2


def test_one_that_does_not_serve_is_out_already_and_waits_for_nobody(tmp_path, gate, turn):
    ledger = rolling(tmp_path)
    gate(ledger, "w1")

    def work(world: Any) -> None:
        world.serves_again(FakeTurn.answer)
        gate(ledger, "w2")
        world.await_place_to_leave({"census": {"worker": status("1.3.0", "1.3.0-new", state="failed")}})

    turn(ledger, "w1", work=staticmethod(work))
    assert ledger.read("roll")["phase"] == {"w1": "left", "w2": "turn"}


def test_the_verifications_of_those_in_flight_beside_it_are_seen_and_no_earlier_ones(tmp_path, turn):
    ledger = rolling(tmp_path)
    seen: list[Any] = []
    early = {"done": True, "worker": status(), "elapsed_s": 1.0}

    def first(world: Any) -> None:
        world.verify_ended(early)

    def second(world: Any) -> None:
        world.verify_ended({"failed": True, "failure": {"code": "probe_failed"}, "msg": "no"})
        seen.append(world.verifications())

    turn(ledger, "w1", work=staticmethod(first))
    turn(ledger, "w2", work=staticmethod(second))
    assert seen == [[{"failed": True, "failure": {"code": "probe_failed"}}]]
    assert ledger.read("roll")["probes"][0] == {"done": True}


def test_a_call_is_taken_in_where_it_is_read(tmp_path, turn, monkeypatch):
    """What a worker's host says is a stranger's data, and a host without a word is unreachable."""
    ledger = rolling(tmp_path)
    answers = [{"changed": True, "done_steps": {"drain": {"done": True, "open_at_drain": 3},
                                                "evil": {"done": True}, "switch": {"done": "yes"}}},
               {"failed": True, "msg": "the line is cut"}]
    asked: list[Any] = []

    def execute(_self: Any, module_name: str, module_args: Any, task_vars: Any) -> Any:
        asked.append(module_name)
        return {**answers[len(seen)], "_ansible_parsed": True}

    monkeypatch.setattr(worker_turn.ActionModule, "_execute_module", execute)
    monkeypatch.setattr(worker_turn.ActionModule, "cleanup", lambda _self: asked.append("cleanup"))
    monkeypatch.setattr(worker_turn, "call_all", lambda looks, **_more: {
        name: _fanout.reached(look()) for name, look in looks.items()})
    seen: list[Any] = []

    def work(world: Any) -> None:
        seen.extend([world.call("worker_steps", {"steps": []}, 60.0)])
        seen.extend([world.call("worker_steps", {"steps": []}, 60.0)])

    turn(ledger, "w1", work=staticmethod(work))
    assert asked == ["solver.fleet.worker_steps", "cleanup"] * 2, "a call's folder is known in its process alone"
    assert sorted(seen[0]["done_steps"]) == ["drain", "switch"]
    assert seen[0]["done_steps"]["switch"]["failed"] is True
    assert seen[1]["unreachable"] is True


def test_an_outcome_of_any_inventory_name_has_its_document(tmp_path):
    names = ["a/b", "..", "w 1", "ü", "a%2Fb"]
    assert len({document_of("roll", name) for name in names}) == len(names)
    assert all("/" not in document_of("roll", name) for name in names)


# -- back and verdict -----------------------------------------------------------------------------


def ended(ledger: Ledger, name: str, outcome: str, cause: str | None = None, part: str = "roll", **more: Any) -> None:
    own = {"outcome": outcome, "cause": cause, "reason": "because" if cause else "", "step": None, "timings": {},
           **more}
    ledger.keep(document_of(part, name), own)
    with ledger.edit(part) as state:
        state["phase"][name] = "left"
        state["brief"][name] = own


def test_nobody_goes_back_after_a_plan_that_nobody_follows(tmp_path):
    ledger = ledger_of(tmp_path, NAMES)
    ledger.keep("plan", plan(fleet(4)))
    assert run(rollout_back, ledger)["workers"] == []
    assert not ledger.read("plan-back")


def test_an_abort_for_the_releases_sake_returns_what_was_updated(tmp_path):
    ledger = rolling(tmp_path, solver_max_fail_percentage=0.0)
    ended(ledger, "w1", "updated")
    ended(ledger, "w2", "reverted", "release")
    said = run(rollout_back, ledger)
    assert said["workers"] == ["w1"]
    assert said["msg"].startswith("rolling back w1: 1 of 4 workers failed (w2)")
    assert ledger.read("plan-back")["way_back"] is True
    assert ledger.read("back")["phase"] == {}
    assert record_of(ledger, "back")[0]["cause"] == "budget"


def test_the_verdict_is_given_written_kept_on_the_hosts_and_the_lock_given_back(tmp_path, hosts):
    ledger = rolling(tmp_path, solver_verdict_file=str(tmp_path / "verdict.json"))
    for name in NAMES:
        ended(ledger, name, "updated")
    there = {**census(), "worker": status("1.3.0", "1.3.0-new")}
    asked = hosts(worker_info=lambda host, _args: GONE if host == "w4" else there,
                  rollout_lock=lambda _host, _args: OURS)
    said = run(rollout_verdict, ledger)
    assert said["verdict"]["verdict"] == "incomplete"
    assert list(said["not_done"]) == ["w4"]
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "incomplete"
    given_back = [own for module, args in asked.calls if module == "rollout_lock" for own in args.items()]
    assert [name for name, _own in given_back] == ["w1", "w2", "w3"], "of one that is lost it ends by its time"
    assert {(own["state"], own["outcome"]) for _name, own in given_back} == {("released", "updated")}
    assert given_back[0][1]["verdict"]["rollout_id"] == "r1"
    assert asked.mains == [os.getppid(), os.getppid(), 0], "the lock is given back to the end, whoever is gone"


def test_one_that_is_still_at_work_was_interrupted_and_hooks_are_told(tmp_path, hosts):
    ledger = rolling(tmp_path)
    with ledger.edit("roll") as state:
        state["phase"]["w1"] = "turn"
    run(rollout_hook_failed, ledger, hook="after_stage", reason="no")
    hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    document = run(rollout_verdict, ledger)["verdict"]
    own = document["workers"][0]
    assert (own["outcome"], own["reason"]) == ("unknown", "the update was interrupted")
    assert document["warnings"] == ["the hook after_stage failed: no"]


def test_a_file_that_cannot_be_written_is_no_reason_to_keep_the_lock(tmp_path, hosts):
    (tmp_path / "file").write_text("")
    ledger = rolling(tmp_path, solver_verdict_file=str(tmp_path / "file" / "verdict.json"))
    asked = hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    document = run(rollout_verdict, ledger)["verdict"]
    assert "the verdict is not in its file" in document["warnings"][0]
    assert asked.calls[-1][0] == "rollout_lock"


def test_the_verdict_has_a_report_beside_it(tmp_path, hosts):
    ledger = rolling(tmp_path, solver_report_file=str(tmp_path / "out" / "report.html"))
    ended(ledger, "w1", "updated")
    ledger.emit("admitted", part="roll", worker="w1")
    ledger.emit("step_ended", part="roll", worker="w1", step="drain", ok=True, took_s=0.0)
    hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    document = run(rollout_verdict, ledger)["verdict"]
    assert [step["step"] for step in document["workers"][0]["steps"]] == ["drain"]
    assert document["samples"][-1]["serving"] == 4
    assert "incomplete: update to 1.3.0" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_costs_nothing(tmp_path, hosts, monkeypatch):
    (tmp_path / "file").write_text("")
    ledger = rolling(tmp_path, solver_report_file=str(tmp_path / "file" / "report.html"),
                     solver_verdict_file=str(tmp_path / "verdict.json"))
    for name in NAMES:
        ended(ledger, name, "updated")
    there = {**census(), "worker": status("1.3.0", "1.3.0-new")}
    hosts(worker_info=lambda _host, _args: there, rollout_lock=lambda _host, _args: OURS)
    monkeypatch.setattr(rollout_verdict, "tell", lambda *_all: 1 / 0)
    said = run(rollout_verdict, ledger)
    assert (said["verdict"]["verdict"], said["not_done"]) == ("completed", {})
    story, report = said["verdict"]["warnings"]
    assert "ZeroDivisionError" in story
    assert report == (f"there is no report: writing {tmp_path}/file/report.html (solver_report_file): File exists")
    assert report in json.loads((tmp_path / "verdict.json").read_text())["warnings"]


def measured(tmp_path: Path, path: Path) -> Ledger:
    ledger = rolling(tmp_path, solver_metrics_file=str(path))
    ledger.keep("plan", {**ledger.read("plan"), "started_at": "2026-11-23T23:25:09Z"})
    return ledger


def test_the_metrics_follow_the_run_from_the_lock_to_the_verdict(tmp_path, hosts, turn):
    path = tmp_path / "out" / "solver.prom"
    ledger = measured(tmp_path, path)
    hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    run(rollout_claim, ledger)
    assert "solver_rollout_running 1\n" in path.read_text()
    assert "solver_rollout_at_target_workers 0\n" in path.read_text()
    with ledger.edit("roll") as state:
        state["phase"]["w1"] = "turn"
    turn(ledger, "w1")
    assert "solver_rollout_at_target_workers 1\n" in path.read_text()
    assert 'solver_rollout_last_verdict{verdict="interrupted"} 1\n' in path.read_text()
    assert run(rollout_verdict, ledger, check_mode=True)["verdict"]["verdict"] == "planned"
    assert "solver_rollout_running 1\n" in path.read_text()
    run(rollout_verdict, ledger)
    assert "solver_rollout_running 0\n" in path.read_text()
    assert 'solver_rollout_last_verdict{verdict="incomplete"} 1\n' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in path.parent.iterdir()] == ["solver.prom"]


def test_metrics_that_cannot_be_written_are_one_warning(tmp_path, hosts, turn, monkeypatch):
    (tmp_path / "file").write_text("")
    ledger = measured(tmp_path, tmp_path / "file" / "solver.prom")
    hosts(worker_info=lambda _host, _args: {**census(), "worker": status("1.3.0", "1.3.0-new")},
          rollout_lock=lambda _host, _args: OURS)
    assert run(rollout_claim, ledger)["refused"] is False
    tried = []
    monkeypatch.setattr(_run, "write_metrics", lambda *_args, **_more: tried.append(1))
    for name in NAMES:
        with ledger.edit("roll") as state:
            state["phase"][name] = "turn"
        turn(ledger, name)
    assert tried == [], "a place that failed once keeps no worker's turn"
    said = run(rollout_verdict, ledger)
    assert (said["verdict"]["verdict"], said["not_done"]) == ("completed", {})
    assert said["verdict"]["warnings"] == [
        f"there are no metrics: writing {tmp_path}/file/solver.prom (solver_metrics_file): File exists"]


def test_the_way_back_that_nobody_came_to_is_said(tmp_path, hosts):
    ledger = rolling(tmp_path, solver_max_fail_percentage=0.0)
    ended(ledger, "w1", "updated")
    ended(ledger, "w2", "reverted", "release")
    run(rollout_back, ledger)
    with ledger.edit("back") as state:
        state["closed"] = {"cause": "lock", "reason": "the lock is lost"}
    hosts(worker_info=lambda _host, _args: census(), rollout_lock=lambda _host, _args: OURS)
    document = run(rollout_verdict, ledger)["verdict"]
    assert (document["verdict"], document["workers"][0]["outcome"]) == ("rollback_failed", "rollback_failed")
    assert "the lock is lost" in document["workers"][0]["reason"]


def test_check_mode_touches_nobody_and_nothing_planned_is_nothing_to_judge(tmp_path, hosts):
    asked = hosts()
    ledger = ledger_of(tmp_path, NAMES, solver_verdict_file=str(tmp_path / "verdict.json"))
    said = run(rollout_verdict, ledger)
    assert said["failed"]
    assert "--start-at-task" in said["msg"]
    ledger.keep("plan", plan(fleet(4)))
    assert run(rollout_verdict, ledger, check_mode=True)["verdict"]["verdict"] == "planned"
    assert asked.calls == []


def test_a_gate_and_a_turn_read_the_settings_of_no_other_worker(tmp_path, gate, turn, monkeypatch):
    """In a fleet of hundreds they are megabytes, and each turn and each gate is a process of its own."""
    ledger, read, whole = rolling(tmp_path), list[str](), Ledger.read

    def noted(self: Ledger, name: str) -> Any:
        read.append(name)
        return whole(self, name)

    def work(world: Any) -> None:
        world.serves_again(FakeTurn.answer)
        world.await_place_to_leave(FakeTurn.answer)

    monkeypatch.setattr(Ledger, "read", noted)
    gate(ledger, "w1")
    turn(ledger, "w1", work=staticmethod(work))
    assert {name for name in read if name.startswith("worker-")} == {"worker-w1"}


def test_a_worker_without_settings_is_said_to_be_none(tmp_path):
    ledger = ledger_of(tmp_path, ["w1", "w/2"])
    workers = _run.Workers(ledger, ["w1", "w/2"])
    assert ([*workers], len(workers), "w/2" in workers, "w3" in workers) == (["w1", "w/2"], 2, True, False)
    assert workers["w/2"]["worker_dir"] == "/w/2"
    (ledger.folder / "worker-w1.json").unlink()
    for name in ("w1", "w3"):
        with pytest.raises(KeyError, match=name):
            workers[name]
