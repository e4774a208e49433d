# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's turn without Ansible: what its programs are made of, and a world that answers by a script."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils._program import Worker
from rollout_kit import SETTINGS, fleet, plan

OWN = {"name": "w1", "control_socket": "/run/w1.sock", "worker_dir": "/opt/w1", "base_dir": "/opt", "machine": "m1",
       "service": {"backend": "command", "name": "w1"}, "provider": {"url": "http://p", "api_key_file": "/key"}}
# What a worker has besides, where the inventory gives it a slot for a standby.
SLOT = {"service": {**OWN["service"], "standby": {"name": "w1-standby", "socket": "/run/w1-standby.sock"}}}


def worker(made: dict[str, Any] | None = None, planned: dict[str, Any] | None = None, **settings: Any) -> Worker:
    """The first worker of a plan; without a soak, unless one is asked for."""
    own = {**SETTINGS, "solver_min_healthy_time": 0.0, **settings}
    made = made or plan(fleet(4), **own)
    return Worker({**made["workers"]["w1"], **(planned or {})}, OWN, own, made)


def status(version: str = "1.3.0", **more: Any) -> dict[str, Any]:
    instance = {"version": version, "boot_id": f"boot of {version}"}
    return {"state": "running", "drain": None, "instance": instance, **more}


def failed(code: str = "worker_failed", **more: Any) -> dict[str, Any]:
    details = more.pop("details", {})
    return {"failed": True, "msg": f"no: {code}", "failure": {"code": code, "details": details}, **more}


# What a good worker answers to each step.
ANSWERS: dict[str, dict[str, Any]] = {
    "drain": {"done": True, "open_at_drain": 3, "elapsed_s": 1.5, "host_clock": {"uptime_s": 1.0},
              "worker": status("1.2.0", state="drained", drain={"owner": "r1", "version": "1.2.0"})},
    "switch": {"done": True, "switched": True, "restarted": True, "boot_id_before": "a", "boot_id": "b",
               "totals_before": {"accepted": 1}, "elapsed_s": 0.5},
    "verify": {"done": True, "worker": status(), "elapsed_s": 2.0},
    "resume": {"done": True, "worker": status(), "host_clock": {"uptime_s": 9.0}},
    "soak": {"done": True, "worker": status()},
    "record": {"changed": False, "ours": True},
    "raise": {"changed": True},
    "serve": {"done": True, "worker": status(), "host_clock": {"uptime_s": 9.0}},
    "settle": {"changed": True, "boot_id": "home"},
    "keep": {"changed": True},
    "drop": {"changed": True},
    "give_back": {"done": True, "worker": status("1.2.0")},
    "revert_drain": {"done": True},
    "revert": {"done": True, "release": {"id": "1.2.0-old", "version": "1.2.0"}},
    "revert_verify": {"done": True, "worker": status("1.2.0")},
    "revert_resume": {"done": True, "worker": status("1.2.0")},
}
GONE = {"unreachable": True, "msg": "no route to host"}


class World:
    """Plays the worker's host: each step has what it answers, one after the other, the last for good.

    An answer that is a function is called, for what happens in the middle of a call. One that is C(GONE) ends the call.
    """

    def __init__(self, *, references: list[dict[str, str]] | None = None, siblings: tuple[dict[str, Any], ...] = (),
                 **answers: Any) -> None:
        self.answers = {name: list(own) if isinstance(own, (list, tuple)) else [own]
                        for name, own in {**ANSWERS, **answers}.items()}
        self.references = references or []
        self.probes = list(siblings)
        self.lives = True
        self.calls: list[list[str]] = []  # what each call was asked to do
        self.sent: list[dict[str, Any]] = []
        self.ran: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []  # reference solves
        self.records: list[dict[str, Any]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.moves: list[str] = []

    def call(self, module: str, args: dict[str, Any], limit: float, host: str = "") -> dict[str, Any]:
        assert limit > 0
        assert self.lives, "nobody takes the result"
        if module == "solve_check":
            self.asked.append((host, copy.deepcopy(args)))
            return self.take("reference" if host else "at_provider")
        assert module == "worker_steps"
        self.calls.append([step["name"] for step in args["steps"]])
        self.sent.append(copy.deepcopy(args))
        return self.steps(args["steps"])

    def steps(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        done: dict[str, Any] = {}
        for step in steps:
            self.ran.append(step["name"])
            if step["name"] == "record":
                self.records.append(step["args"])
            answer = self.take(step["name"])
            if answer is None or answer.get("unreachable"):
                return copy.deepcopy(answer or {})
            done[step["name"]] = copy.deepcopy(answer)
            if not step["goes_on"] and (answer.get("failed") or answer.get("done", True) is not True):
                break
        return {"changed": True, "done_steps": done}

    def take(self, name: str) -> Any:
        left = self.answers[name]
        answer: Any = left.pop(0) if len(left) > 1 else left[0]
        made: Callable[[], Any] = answer if callable(answer) else lambda: answer
        return made()

    def alive(self) -> bool:
        return self.lives

    def sleep(self, seconds: float) -> None:
        self.moves.append(f"slept {seconds:g}")

    def emit(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    def verify_ended(self, result: dict[str, Any]) -> None:
        self.probes.append(result)

    def verifications(self) -> list[dict[str, Any]]:
        return self.probes

    def reference_workers(self) -> list[dict[str, str]]:
        return self.references

    def serves_again(self, answer: Any) -> None:
        self.moves.append(f"serves {answer['census']['worker']['instance']['version']}")

    def await_place_to_leave(self, answer: Any) -> None:
        self.moves.append(f"leaves {answer.get('census', {}).get('worker', {}).get('state')}")
