# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole histories of random fleets: rollouts that are killed, lose hosts and meet bad releases, one after the other.

All that runs on the controller is real: plan, lock, gate, turns, who goes back, verdict; many turns at once, each a
thread that runs until it asks a host for something, and then any of them goes on. Only the workers are a model here, of
what docs/control-api.md says of a drain, a lease and a restart; real ones go through the same in tests/faults. After
each move the invariants are looked at.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ansible_collections.solver.fleet.plugins.action import (
    rollout_back,
    rollout_claim,
    rollout_gate,
    rollout_verdict,
    worker_turn,
)
from ansible_collections.solver.fleet.plugins.module_utils import _job_lock, _record
from ansible_collections.solver.fleet.plugins.module_utils._carried import carried
from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _gate, _plan, _step
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import PLAN_OF
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from rollout_kit import RUN, SETTINGS, census

AT = _record.Now("2026-11-24T01:00:00Z", {"host_boot_id": "b", "uptime_s": 1.0})
OLD = "1.2.0-new"
EXAMPLES = int(os.environ.get("SF_EXAMPLES", "150"))  # a night's worth of them finds what a minute's does not
# The last never solves, the one before it not on some of the workers.
VERSIONS = ("1.2.0", "1.3.0", "1.4.0", "1.5.0")
LOCK_DEFAULTS = {name: option.get("default") for name, option in _job_lock.argument_spec().items()}


class KilledError(BaseException):
    """The controller is gone; no code of ours can keep that."""


class BrokenError(BaseException):
    """An invariant does not hold; this too is for no code of ours to take for a mistake of its own."""


class AbortError(BaseException):
    """The test has failed, so its threads end."""


def version_of(release: str) -> str:
    return release.split("-", maxsplit=1)[0]


def failed(code: str, **more: Any) -> dict[str, Any]:
    details = more.pop("details", {})
    return {"failed": True, "msg": code, "failure": {"code": code, "details": details}, **more}


@dataclass
class Worker:
    """One worker as docs/control-api.md describes it."""

    name: str
    running: str = OLD
    linked: str = OLD
    previous: str | None = None
    drain: dict[str, Any] | None = None
    reachable: bool = True
    record: dict[str, Any] = field(default_factory=_record.empty)
    cannot: tuple[str, ...] = ("1.5.0",)

    def solves(self) -> bool:
        return version_of(self.running) not in self.cannot

    def serves(self) -> bool:
        return self.drain is None

    def census(self) -> dict[str, Any]:
        return self.seen() if self.reachable else {"unreachable": True, "msg": "no route to host"}

    def status(self) -> dict[str, Any]:
        return dict(self.seen()["worker"])

    def seen(self) -> dict[str, Any]:
        seen = census(version_of(self.running), "drained" if self.drain else "running", self.running,
                      self.drain and {**self.drain, "expired": False}, self.record)
        seen["releases"]["current"] = {"id": self.linked, "version": version_of(self.linked)}
        lock = self.record["lock"]
        return {**seen, "lock_state": "held" if lock else "free"}

    def take(self, owner: str, on_expire: str | None) -> None:
        version = (self.drain or {}).get("version") or version_of(self.running)
        kept = (self.drain or {}).get("on_expire")
        self.drain = {"owner": owner, "version": version, "on_expire": on_expire or kept or "resume"}

    def lease_ends(self) -> None:
        """Before the switch it just resumes; after it, only a release that solves may."""
        if self.drain is None or self.drain["on_expire"] == "hold":
            return
        known = self.drain["version"] == version_of(self.running) and self.drain["on_expire"] == "resume"
        if known or self.solves():
            self.drain = None

    def starts(self, release: str, on_expire: str) -> None:
        if release != self.linked:
            self.previous = self.linked
        self.running = self.linked = release
        if self.drain:
            self.drain["on_expire"] = on_expire


class Ledger:
    """A ledger in memory, with copies as files would give them."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []
        self.folder = "/nowhere"

    def keep(self, name: str, document: Any) -> None:
        self.documents[name] = copy.deepcopy(dict(document))
        self.versions[name] = self.versions.get(name, 0) + 1

    def read(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self.documents.get(name, {}))

    def version(self, name: str) -> tuple[int, int]:
        return self.versions.get(name, 0), 0

    @contextlib.contextmanager
    def edit(self, name: str) -> Iterator[dict[str, Any]]:
        document = self.read(name)
        yield document
        if document != self.documents.get(name):
            self.keep(name, document)

    def emit(self, event: str, **facts: Any) -> None:
        self.events.append(json.loads(json.dumps({"clock": NOW.time(), "event": event, **facts})))

    def told(self) -> list[dict[str, Any]]:
        return self.events

    def has_screen(self) -> bool:
        return True


class Task(threading.Thread):
    """What runs for one host, until it pauses."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.host, self.work, self.turns = name, work, False
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.over, self.ending, self.error = False, False, None
        self.start()

    def run(self) -> None:
        self.go.acquire()
        try:
            if not self.ending:
                self.work()
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self.error = error
        finally:
            self.over = True
            self.back.release()

    def pause(self) -> None:
        self.back.release()
        self.go.acquire()
        if self.ending:
            raise AbortError

    def step(self) -> None:
        self.go.release()
        self.back.acquire()
        if self.error and not self.ending:
            raise self.error


class Calls:
    """The looks of a gate that waits; asking a host is where others go on."""

    def __init__(self, **_more: Any) -> None:
        self.asked: dict[str, Callable[[], Any]] = {}

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_why: object) -> None:
        """Leave nothing."""

    def add(self, host: str, look: Callable[[], Any]) -> None:
        self.asked[host] = look

    def collect(self, _wait: float) -> dict[str, Any]:
        asked, self.asked = self.asked, {}
        found = {host: look() for host, look in asked.items()}
        NOW.world.pause()
        return found


class NOW:
    """The clock of the controller, in place of the module time; the world that it is in."""

    world: World

    @classmethod
    def monotonic(cls) -> float:
        return cls.world.clock

    time = monotonic

    @classmethod
    def sleep(cls, seconds: float) -> None:
        cls.world.clock += seconds
        cls.world.pause()


class Ours:
    """Stands before an action: what Ansible would give it comes from the world."""

    _task = SimpleNamespace(check_mode=False)
    _display = SimpleNamespace(display=lambda _text: None)
    forks, look_s, lanes, task_vars = 50, 1.0, {}, None

    def __init__(self, world: World, **args: Any) -> None:
        self.world, self.args, self.ledger = world, args, world.ledger
        self.rollout = {"hosts": list(world.workers), "routers": {}, "started_at": world.started_at, "run_id": "",
                        "who": {"job": None, "user": "ada", "controller": {}}}
        self.settings, self.workers = world.settings, world.own_settings

    def begin(self, _tmp: Any, _task_vars: Any, **_options: Any) -> dict[str, Any]:
        return {}

    @property
    def main(self) -> int:
        return os.getppid() if self.world.alive else -1

    def everywhere(self, module: str, args: dict[str, Any], *_how: Any, **_more: Any) -> dict[str, Any]:
        return {name: self.world.ask(name, module, own) for name, own in args.items()}

    def call(self, module: str, args: dict[str, Any], _limit: float, host: str = "") -> dict[str, Any]:
        return self.world.ask(host or self.me, module, args)


class Claim(Ours, rollout_claim.ActionModule):
    pass


class Gate(Ours, rollout_gate.ActionModule):
    pass


class Turn(Ours, worker_turn.ActionModule):
    wait_s = 0.0


class Back(Ours, rollout_back.ActionModule):
    pass


class Verdict(Ours, rollout_verdict.ActionModule):
    pass


def call_on(action: Any, _task_vars: Any, host: str, module: str, args: dict[str, Any]) -> Callable[[], Any]:
    return lambda: action.world.ask(host, module.rpartition(".")[2], args)


class World:
    """A fleet, and what befalls it."""

    def __init__(self, size: int, chance: random.Random) -> None:
        self.workers = {f"w{number}": Worker(f"w{number}") for number in range(1, size + 1)}
        self.own_settings = {name: {
            "name": name, "control_socket": f"/{name}", "worker_dir": f"/{name}", "base_dir": "/opt", "service": {},
            "machine": "local", "provider": {}} for name in self.workers}
        self.chance = chance
        self.story: list[str] = []
        for worker in self.workers.values():
            if chance.random() < 0.4:
                worker.cannot = ("1.4.0", "1.5.0")
        self.runs = 0
        self.calm = False
        self.clock = 1000.0
        self.alive = True
        self.task: Task | None = None
        self.out_before: set[str] = set()
        self.unseen: set[str] = set()
        self.ledger = Ledger()

    def happens(self, one_in: int) -> bool:
        return not self.calm and self.chance.randrange(one_in) == 0

    def pause(self) -> None:
        """Let others go on; nobody comes back from here when the test is over."""
        if self.task:
            self.task.pause()

    def living(self, name: str) -> Worker:
        """A worker at the beginning of what is done to it: the controller may die here, and the connection as well."""
        self.pause()
        if not self.alive or self.happens(120):
            raise KilledError
        worker = self.workers[name]
        if worker.reachable and self.happens(100):
            worker.reachable = False
            self.story.append(f"{name} is lost")
        if self.happens(300):
            worker.lease_ends()
        self.look()
        return worker

    def look(self) -> None:
        """What must hold at every moment."""
        for worker in self.workers.values():
            if worker.serves() and not worker.solves():
                raise BrokenError(f"{worker.name} serves a bad release")
        # Of one that could not be asked from the beginning nobody knows: it counts against the budget alone.
        out = {name for name, worker in self.workers.items() if not worker.serves()} - self.unseen
        if out - self.out_before and len(out) > self.window:
            raise BrokenError(f"out of service: {out}, before {self.out_before}, window {self.window}")

    def shown(self) -> str:
        return "; ".join(f"{worker.name} {worker.running} {worker.drain or 'serves'} "
                         f"{'' if worker.reachable else 'lost'}" for worker in self.workers.values())

    # -- one run of the playbook ----------------------------------------------------------------

    def run(self, kind: str, version: str = "", **given_settings: Any) -> str:
        """Run the playbook; return the verdict, or C(killed)."""
        self.runs += 1
        self.settings = {**SETTINGS, "solver_version": version, **given_settings}
        self.window = self.settings["window"]
        self.started_at = f"2026-11-24T01:{self.runs:02}:00Z"
        self.out_before = {name for name, worker in self.workers.items() if not worker.serves()}
        self.alive, self.ledger, NOW.world = True, Ledger(), self
        self.moves: list[str] = []
        try:
            word = self._run(kind, version)
        except KilledError:
            word = "killed"
        finally:
            self.task = None
        self.story.append(f"{kind} {version}: {word}; {self.became('roll')} {self.became('back')} {self.shown()}")
        if word == "killed":
            return word
        assert word == "refused" or all(worker.record["lock"] is None for worker in self.workers.values()
                                        if worker.reachable and worker.name in self.plan["lock"]["workers"])
        return word

    def became(self, part: str) -> dict[str, Any]:
        state = self.ledger.read(part)
        return {"closed": state.get("closed"), **{name: {**state["brief"].get(name, {}), "phase": phase}
                                                  for name, phase in state.get("phase", {}).items()}}

    def _run(self, kind: str, version: str) -> str:
        release = {"release": {"id": f"{version}-new", "version": version}} if version else None
        fleet = {}
        for name in self.workers:
            seen = self.living(name).census()
            at_target = release and seen.get("worker") and self.workers[name].linked == release["release"]["id"]
            fleet[name] = {"census": seen, "staged": release and {**release, "at_target": at_target}}
        # Every run here is ended before the next, so its lock is a dead one's.
        self.plan = plan = _plan.make_plan(fleet, self.settings, {
            **RUN, "kind": kind, "run_id": f"run{self.runs}", "new_id": f"r{self.runs}",
            "dead_runs": [f"run{number}" for number in range(1, self.runs)],
            "machines": dict.fromkeys(fleet, "m1"), "routers": {}})
        if plan["refused"]:
            return "refused"
        self.unseen = {name for name, own in plan["workers"].items() if own["action"] == "unreachable"}
        self.ledger.keep("plan", plan)
        if Claim(self).run()["refused"]:
            assert any(not worker.reachable for worker in self.workers.values()), "only who is lost has no lock"
            return "refused"
        # Without the turns of those that were lost meanwhile.
        self.plan = self.ledger.read("plan")
        self.roll("roll")
        Back(self).run()
        self.roll("back")
        document = Verdict(self).run()["verdict"]
        self.judge(document)
        return str(document["verdict"])

    # -- the play that rolls ----------------------------------------------------------------------

    def roll(self, part: str) -> None:
        for stage in (own for own in self.ledger.read(PLAN_OF[part])["stages"] if own["workers"]):
            self.part, self.stage = part, stage
            self.play([Task(name, lambda name=name: self.host(name)) for name in stage["workers"]])
            if not self.alive:
                raise KilledError
            self.look_at_the_order()

    def forks(self, hosts: int) -> int:
        return self.chance.randint(1, hosts)

    def play(self, waiting: list[Task]) -> None:
        """As host_pinned does it: so many hosts at once as there are forks, in order."""
        forks, running, idle = self.forks(len(waiting)), [], 0
        everybody = list(waiting)
        try:
            while waiting or running:
                while waiting and len(running) < forks:
                    running.append(waiting.pop(0))
                turns = [task for task in running if task.turns]
                self.task = self.chance.choice(turns if turns and self.chance.random() < 0.7 else running)
                self.clock += self.chance.uniform(0, 5) if turns else self.chance.uniform(0, 9)
                self.clock += 901 if self.happens(3000) else 0
                self.task.step()
                self.look()
                idle = 0 if turns or self.task.over else idle + 1
                # A deadline of 900 s takes some 200 steps.
                assert idle < 400 * len(everybody), f"all wait for ever: {self.ledger.read(self.part)}"
                running = [task for task in running if not task.over]
        finally:
            for task in everybody:
                task.ending = True
                while not task.over:
                    task.step()
            self.task = None

    def host(self, name: str) -> None:
        """The tasks of the play for one host; when the controller dies, each notices it by itself."""
        try:
            said = Gate(self, worker=name, part=self.part).run()
            if said.get("failed") or not said["open"]:
                return
            self.moves.append(f"{name} admitted")
            self.look_at_the_window(name)
            self.tasks_of(name).turns = True
            ended = Turn(self, worker=name, part=self.part).run()
            assert ended.get("failed") or ended["outcome"]["step"] != "turn", ended
            if self.part == "roll" and not ended.get("failed"):
                self.look_at_the_record(name, ended["outcome"])
        except KilledError:
            self.alive = False

    def tasks_of(self, name: str) -> Task:
        assert self.task
        assert self.task.host == name
        return self.task

    # -- what must be true while it rolls -----------------------------------------------------------

    def look_at_the_window(self, name: str) -> None:
        state = self.ledger.read(self.part)
        window, soaking = self.stage["window"], self.plan["max_soaking"]
        assert _admit.occupied(state, soaking) <= window, (state, window)
        assert len(_admit.in_flight(state)) <= window
        assert len(_admit.in_flight(state)) + len(_admit.soaking(state)) <= window + soaking
        if self.part == "roll":
            spent = _gate.spent_by(self.plan, {host: own for host, own in state["brief"].items() if host != name})
            assert len(spent) <= self.plan["tolerated"], "admitted above the budget"

    def look_at_the_order(self) -> None:
        """Whoever was admitted was so in the plan's order, and nobody was passed over."""
        admitted = list(self.ledger.read(self.part)["phase"])
        stages = self.ledger.read(PLAN_OF[self.part])["stages"]
        assert admitted == [name for stage in stages for name in stage["workers"]][:len(admitted)]

    def look_at_the_record(self, name: str, outcome: dict[str, Any]) -> None:
        """As soon as the turn has ended: a controller that is killed now forgets nothing."""
        worker = self.workers[name]
        own = worker.record["rollout"] or {}
        moves = own.get("id") == self.plan["rollout_id"] and self.plan["kind"] != "recover"
        if worker.reachable and moves and outcome["outcome"] != "unreachable":
            assert (own["outcome"], own["cause"]) == (outcome["outcome"], outcome["cause"]), (own, outcome)

    # -- what a host answers ----------------------------------------------------------------------

    def ask(self, name: str, module: str, args: dict[str, Any]) -> dict[str, Any]:
        """The answer of a module; the controller may die while it runs, and the connection may."""
        if module == "worker_steps":
            return self.steps(name, args)
        worker = self.living(name)
        if not worker.reachable:
            return {"unreachable": True, "msg": "no route to host"}
        if module == "worker_info":
            return worker.census()
        if module == "rollout_lock":
            return self.lock(worker, {**LOCK_DEFAULTS, **args})
        assert module == "solve_check"
        return self.probe(worker)

    def lock(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        """What rollout_lock does, without its file."""
        ours = _record.is_ours(worker.record, args["run_id"])
        if args["state"] == "held":
            refusal = _record.refusal(worker.record, _job_lock.claim_of(args), AT)
            assert refusal is None, refusal
            worker.record = _record.held(worker.record, _job_lock.claim_of(args), AT)
        elif args["state"] == "renewed" and not ours:
            return failed("lock_lost")
        elif args["state"] == "renewed":
            became = {name: args[name] for name in ("outcome", "cause", "outcome_reason")}
            worker.record = _record.renewed(worker.record, args["ttl"], AT, became if became["outcome"] else None)
        elif ours:
            end = {"verdict": args["verdict"]["verdict"], **{
                name: args[name] for name in ("outcome", "cause", "outcome_reason")}} if args["verdict"] else {}
            worker.record = _record.released(worker.record, args["roster"], end, AT)
        return {"ours": _record.is_ours(worker.record, args["run_id"]), "record": worker.record,
                "census": worker.census()}

    def probe(self, worker: Worker) -> dict[str, Any]:
        if self.happens(4):
            return failed("probe_failed", details={"fault": "provider"}, worker=worker.status())
        if not worker.solves():
            return failed("probe_failed", details={"fault": "worker"}, worker=worker.status())
        return {"done": True, "worker": worker.status()}

    def steps(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """What worker_steps does: as far as it gets, or as far as its host lets it."""
        results: dict[str, Any] = {}
        silent = False
        for step in args["steps"]:
            was = self.workers[name].reachable
            worker = self.living(name)
            if not worker.reachable:
                silent = True
                # The process on the host may go on, and nobody hears of it.
                if not was or self.chance.random() < 0.5:
                    break
            given_args = {**step["args"], **carried(step["name"], {**args["before"], **results})}
            result = results[step["name"]] = self.step(step["name"], worker, given_args)
            said = _step.code_of(result) or ("done" if result.get("done", True) else "not yet")
            to = f" {given_args['release']}" if "release" in given_args else ""
            self.moves.append(f"{name} {step['name']}{to} {said}{' unheard' if silent else ''}")
            if not step["goes_on"] and (result.get("failed") or result.get("done", True) is not True):
                break
        self.look()
        return {"unreachable": True, "msg": "the connection was lost"} if silent else {"done_steps": results}

    def step(self, step: str, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        if "run_id" in args and not _record.is_ours(worker.record, args["run_id"]):
            return failed("fenced")
        does = {"drain": self.drain, "revert_drain": self.drain, "hold": self.drain, "switch": self.switch,
                "revert": self.switch, "verify": self.verify, "revert_verify": self.verify, "soak": self.soak,
                "record": self.record, "renew": self.record}
        return does.get(step, self.resume)(worker, args)

    def drain(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        if worker.drain and worker.drain["owner"] not in (args["owner"], "") and not args.get("steal"):
            return failed("foreign_drain")
        if args["on_timeout"] != "force" and self.happens(12):
            # It does not end in time; what this turn took it gives back, and not what a run before had left.
            ours = (worker.drain or {}).get("run", self.runs) == self.runs and args.get("on_expire") != "hold"
            worker.drain = None if ours else worker.drain
            return failed("drain_timeout", gave_back=ours, worker=worker.status())
        run = (worker.drain or {}).get("run", self.runs)
        worker.take(args["owner"], args.get("on_expire"))
        worker.drain["run"] = run
        done = not self.happens(6) or args["on_timeout"] == "force"
        return {"done": done, "worker": worker.status(), "open_at_drain": 1}

    def switch(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        if worker.drain is None:
            return failed("lease_lost", switched=False)
        if self.happens(30):
            return failed("unwritable", switched=False)
        release = worker.previous if args.get("previous") else args["release"]
        if release is None:
            return failed("no_previous", switched=False)
        moved = worker.running != release
        worker.starts(release, args.get("on_expire", "verify"))
        return {"done": True, "switched": moved, "restarted": moved, "changed": moved}

    def verify(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        if self.happens(10):
            return {"done": False}
        if args.get("expect_release", worker.running) != worker.running or self.happens(40):
            return failed("wrong_release", worker=worker.status())
        if "probe" not in args["checks"]:
            return {"done": True, "worker": worker.status()}
        return self.probe(worker)

    def resume(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        if worker.drain and worker.drain["owner"] != args["owner"]:
            return failed("foreign_drain")
        if self.happens(60):
            return failed("worker_failed")
        worker.drain = None
        return {"done": True, "worker": worker.status()}

    def soak(self, worker: Worker, _args: dict[str, Any]) -> dict[str, Any]:
        status = worker.status()
        if self.happens(3):
            return {"done": False, "worker": status}
        return failed("worker_failed", worker=status) if self.happens(12) else {"done": True, "worker": status}

    def record(self, worker: Worker, args: dict[str, Any]) -> dict[str, Any]:
        return self.lock(worker, {**LOCK_DEFAULTS, **args})

    # -- what must be true of a verdict ----------------------------------------------------------

    def judge(self, document: dict[str, Any]) -> None:
        plan = self.plan
        outcomes = {own["name"]: own["outcome"] for own in document["workers"]}
        reached = {name: worker for name, worker in self.workers.items() if worker.reachable}
        if document["verdict"] == "completed" and plan["kind"] == "update":
            assert all(worker.serves() and worker.running == f"{plan['target']}-new" for worker in reached.values())
        if document["verdict"] == "rolled_back":
            # One that could not be reverted, now or before, is named by itself.
            assert all(worker.running != f"{plan['target']}-new" for name, worker in reached.items()
                       if outcomes[name] not in _gate.SPENDS and _gate.moved(plan["workers"][name])), outcomes
        # Whoever is still drained is named as such; nobody is forgotten.
        for name, worker in reached.items():
            assert worker.serves() or outcomes[name] not in (*_gate.GOOD, "reverted", "returned", "rolled_back"), \
                (name, outcomes)
            if not worker.serves() and outcomes[name] == "not_attempted":
                own = plan["workers"][name]
                # A recovery that a failure stopped leaves held who has nothing to go back to, and says so.
                nowhere = plan["kind"] == "recover" and own["back_to"] is None and own["reason"].startswith("left ")
                assert any(not other.reachable for other in self.workers.values()) or nowhere \
                    or document["verdict"] == "rollback_failed", (name, document)
        assert not any("our own code" in text for text in document["warnings"]), document["warnings"]


def in_the_world(test: Callable[..., None]) -> Callable[..., None]:
    """Have the actions ask the world, by its clock."""
    for patch in (mock.patch.multiple(rollout_gate, Calls=Calls, call_on=call_on, time=NOW,
                                      _entry=SimpleNamespace(lock_answer=lambda raw, _now: raw)),
                  mock.patch.multiple(worker_turn, time=NOW), mock.patch.multiple(rollout_claim, time=NOW),
                  mock.patch.multiple(rollout_back, time=NOW)):
        test = patch(test)
    return test


@in_the_world
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(0, 2**32))
def test_no_history_breaks_an_invariant_and_every_one_ends_well(seed):
    chance = random.Random(seed)
    size = chance.randint(1, 7)
    world = World(size, chance)
    own = {"window": max(1, min(chance.randint(1, 3), size // 2)),
           "solver_max_fail_percentage": chance.choice([0.0, 25.0, 50.0]),
           "solver_on_abort": chance.choice(["rollback", "rollback", "stop"]),
           "solver_min_healthy_time": chance.choice([0.0, 60.0]),
           "solver_window": chance.choice(["sliding", "sliding", "waves"]),
           "solver_stages": chance.choice([[], [], [1], [1, "50%"]])}
    own["soaking"] = chance.randint(0, own["window"])
    try:
        storm(world, own)
        calm(world, own)
    except (AssertionError, BrokenError) as error:
        error.add_note("\n".join([f"{size} workers, {own}", *world.story, "; ".join(world.moves)]))
        raise


def storm(world: World, own: dict[str, Any]) -> None:
    """Anything happens, in any order."""
    for _move in range(world.chance.randint(1, 6)):
        what = world.chance.choice([*["update"] * 3, "rollback", "recover", "leases end", "hosts are back"])
        if what == "leases end":
            for worker in world.workers.values():
                worker.lease_ends()
        elif what == "hosts are back":
            for worker in world.workers.values():
                worker.reachable = True
        else:
            version = world.chance.choice(VERSIONS) if what == "update" else ""
            event(f"{what}: {world.run(what, version, **own)}")
            continue
        world.story.append(what)


def calm(world: World, own: dict[str, Any]) -> None:
    """Hosts are back, and nothing fails any more but what is bad: all must come right."""
    world.calm = True
    world.story.append("calm")
    for worker in world.workers.values():
        worker.reachable = True
    world.run("recover", **{**own, "solver_max_fail_percentage": 100.0})
    for worker in world.workers.values():
        assert worker.serves(), worker
        assert worker.solves()
    world.run("recover", **own)
    assert world.plan["order"] == [], "a second recovery has something to do"
    assert world.run("update", "1.3.0", **{**own, "solver_force": True}) == "completed"
    assert {worker.running for worker in world.workers.values()} == {"1.3.0-new"}
    assert world.run("update", "1.3.0", **own) == "completed"
    assert world.plan["order"] == []
