# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks at hosts for people: bounded, each row with its age, and nobody waits without a word."""

from __future__ import annotations

import time
from typing import Any

import pytest
from action_kit import made, rollout_of
from ansible_collections.solver.fleet.plugins.action import fleet_ask, fleet_resume
from ansible_collections.solver.fleet.plugins.plugin_utils._controller import _run

NAMES = ["w1", "w2", "w3"]


class Display:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def display(self, line: str, stderr: bool = False) -> None:
        self.lines.append(line)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each host does when it is asked, in a process of its own; a look has half a second."""
    behaviour: dict[str, Any] = {}
    monkeypatch.setattr(_run, "CONNECT_S", 0.1)
    monkeypatch.setattr(_run, "SAY_EVERY_S", 0.2)

    def call_on(_action: Any, _task_vars: Any, host: str, module: str, args: dict[str, Any]) -> Any:
        return lambda: behaviour[host](module, args)

    monkeypatch.setattr(_run, "call_on", call_on)
    return behaviour


def ask(
    kind: type[Any] = fleet_ask.ActionModule, settings: dict[str, Any] | None = None, **args: Any,
) -> tuple[Any, Any]:
    rollout = rollout_of(NAMES, solver_control_timeout=0.1, **(settings or {}))
    action = made(kind, {"rollout": rollout, **args})
    action._display = Display()
    return action.run(task_vars={"ansible_forks": 5}), action._display


def dead(_module: str, _args: Any) -> dict[str, Any]:
    return {"changed": False, "finding": "dead", "worker": None, "lock_state": "free", "message": "nobody listens"}


def test_a_host_that_says_nothing_keeps_nobody_waiting_for_long(hosts: dict[str, Any]) -> None:
    hosts.update(w1=dead, w2=lambda *_all: time.sleep(600), w3=dead)
    began = time.monotonic()
    result, display = ask()
    assert time.monotonic() - began < 20
    assert {name: own.get("finding") for name, own in result["answers"].items()} == {
        "w1": "dead", "w2": None, "w3": "dead"}
    silent = result["answers"]["w2"]
    assert (silent["unreachable"], silent["msg"]) == (True, "no answer within 0.5 s")
    assert result["answers"]["w1"]["age_s"] > 0.2, "its row is older than that of the last one"
    assert "waiting for 1 of 3 workers, each for at most 0 s: w2" in display.lines


def test_a_lost_host_is_named_with_its_address() -> None:
    action = made(fleet_ask.ActionModule, {})
    action.workers = {"w1": {"machine": "10.0.0.7"}, "w2": {"machine": "local"}}
    lost = {"unreachable": True, "msg": "no answer within 80 s"}
    assert action._addressed("w1", lost)["msg"] == "10.0.0.7: no answer within 80 s"
    assert action._addressed("w2", {}) == {"unreachable": True, "msg": "it said nothing"}
    assert action._addressed("w1", {"finding": "dead"}) == {"finding": "dead"}


def test_only_those_that_are_named_are_asked(hosts: dict[str, Any]) -> None:
    hosts.update(w2=dead)
    assert list(ask(workers=["w2"])[0]["answers"]) == ["w2"]
    assert ask(workers=[])[0]["answers"] == {}


def test_a_stranger_that_answers_wrongly_is_named_alone(hosts: dict[str, Any]) -> None:
    hosts.update(w1=dead, w2=lambda *_all: {"finding": "answering", "worker": 5}, w3=lambda *_all: {})
    answers = ask()[0]["answers"]
    assert "answers wrongly: worker" in answers["w2"]["msg"]
    assert answers["w3"]["unreachable"] is True, "one that says nothing has heard no request"
    assert answers["w1"]["finding"] == "dead"


def test_a_request_reaches_every_worker(hosts: dict[str, Any]) -> None:
    def heard(module: str, args: dict[str, Any]) -> dict[str, Any]:
        assert (module, args["request"], args["reason"]) == ("solver.fleet.rollout_lock", "pause", "on the phone")
        return {"changed": True, "ours": False, "record": None}

    hosts.update(dict.fromkeys(NAMES, heard))
    result, _display = ask(settings={"solver_reason": "on the phone"}, request="pause")
    assert result["changed"] is True
    assert [own.get("failure") for own in result["answers"].values()] == [None, None, None]


def test_who_cannot_be_resumed_is_named_with_what_to_do(hosts: dict[str, Any]) -> None:
    hosts.update(dict.fromkeys(NAMES, dead))
    settings = {"solver_only": ["w2"], "solver_resume_foreign": False, "solver_reason": ""}
    result, _display = ask(fleet_resume.ActionModule, settings)
    assert list(result["not_serving"]) == ["w2"]
    assert "nobody listens; recover.yml" in result["not_serving"]["w2"]


def test_the_line_for_those_who_wait_is_short() -> None:
    line = _run.waiting_line([f"w{number}" for number in range(1, 41)], 50, 80.0)
    assert line.startswith("waiting for 40 of 50 workers, each for at most 80 s: w1, w2, w3")
    assert line.endswith("w10 and 30 more")
