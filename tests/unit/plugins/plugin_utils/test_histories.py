# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole histories of random fleets: rollouts that are killed, lose hosts and meet bad releases, one after the other.

The decisions are the real ones: plan, lock record, gate, what follows a failed step, outcome, who goes back, verdict.
Only the workers are a model here, of what docs/control-api.md says of a drain, a lease and a restart; real ones go
through the same in tests/faults. After each move the invariants are looked at.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils import _record
from ansible_collections.solver.fleet.plugins.plugin_utils import _gate, _plan, _step, _verdict
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from rollout_kit import SETTINGS, census

AT = _record.Now("2026-11-24T01:00:00Z", {"host_boot_id": "b", "uptime_s": 1.0})
OLD = "1.2.0-new"
EXAMPLES = int(os.environ.get("SF_EXAMPLES", "300"))  # a night's worth of them finds what a minute's does not
# The last never solves, the one before it not on some of the workers.
VERSIONS = ("1.2.0", "1.3.0", "1.4.0", "1.5.0")


class KilledError(Exception):
    """The controller is gone."""


def version_of(release: str) -> str:
    return release.split("-", maxsplit=1)[0]


@dataclass
class Worker:
    """One worker as docs/control-api.md describes it."""

    name: str
    running: str = OLD
    linked: str = OLD
    drain: dict[str, Any] | None = None
    reachable: bool = True
    record: dict[str, Any] = field(default_factory=_record.empty)
    cannot: tuple[str, ...] = ("1.5.0",)

    def solves(self) -> bool:
        return version_of(self.running) not in self.cannot

    def serves(self) -> bool:
        return self.drain is None

    def census(self) -> dict[str, Any]:
        if not self.reachable:
            return {"unreachable": True, "msg": "no route to host"}
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
        if self.drain is None:
            return
        known = self.drain["version"] == version_of(self.running) and self.drain["on_expire"] == "resume"
        if known or self.solves():
            self.drain = None

    def starts(self, release: str) -> None:
        self.running = self.linked = release
        if self.drain:
            self.drain["on_expire"] = "verify"


class World:
    """A fleet, and what befalls it."""

    def __init__(self, size: int, chance: random.Random) -> None:
        self.workers = {f"w{number}": Worker(f"w{number}") for number in range(1, size + 1)}
        self.chance = chance
        self.story: list[str] = []
        for worker in self.workers.values():
            if chance.random() < 0.4:
                worker.cannot = ("1.4.0", "1.5.0")
        self.runs = 0
        self.calm = False
        self.out_before: set[str] = set()
        self.unseen: set[str] = set()

    def happens(self, one_in: int) -> bool:
        return not self.calm and self.chance.randrange(one_in) == 0

    def living(self, name: str) -> Worker:
        """A worker at the beginning of a remote call: the controller may die here, and the line as well."""
        if self.happens(60):
            raise KilledError
        worker = self.workers[name]
        if worker.reachable and self.happens(60):
            worker.reachable = False
            self.story.append(f"{name} is lost")
        self.look()
        return worker

    def look(self) -> None:
        """What must hold at every moment."""
        for worker in self.workers.values():
            assert not (worker.serves() and not worker.solves()), f"{worker.name} serves a bad release"
        # Of one that could not be asked from the beginning nobody knows: it counts against the budget alone.
        out = {name for name, worker in self.workers.items() if not worker.serves()} - self.unseen
        newly = out - self.out_before
        assert not newly or len(out) <= self.window, (out, self.out_before, self.window)

    def shown(self) -> str:
        return "; ".join(f"{worker.name} {worker.running} {worker.drain or 'serves'} "
                         f"{'' if worker.reachable else 'lost'}" for worker in self.workers.values())

    # -- one run of the playbook ----------------------------------------------------------------

    def run(self, kind: str, version: str = "", **given_settings: Any) -> str:
        """Run the playbook; return the verdict, or C(killed)."""
        self.runs += 1
        self.settings = {**SETTINGS, "solver_version": version, **given_settings}
        self.window = self.settings["window"]
        self.out_before = {name for name, worker in self.workers.items() if not worker.serves()}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.backs: dict[str, dict[str, Any]] = {}
        try:
            word = self._run(kind, version)
        except KilledError:
            self.story.append(f"{kind} {version}: killed; {self.outcomes} {self.backs} {self.shown()}")
            return "killed"
        self.story.append(f"{kind} {version}: {word}; {self.outcomes} {self.backs} {self.shown()}")
        assert word == "refused" or all(worker.record["lock"] is None for worker in self.workers.values()
                                        if worker.reachable and worker.name in self.plan["lock"]["workers"])
        return word

    def _run(self, kind: str, version: str) -> str:
        release = {"release": {"id": f"{version}-new", "version": version}} if version else None
        fleet = {}
        for name in self.workers:
            seen = self.living(name).census()
            at_target = release and seen.get("worker") and self.workers[name].linked == release["release"]["id"]
            fleet[name] = {"census": seen, "staged": release and {**release, "at_target": at_target}}
        # Every run here is ended before the next, so its lock is a dead one's.
        self.plan = plan = _plan.make_plan(fleet, self.settings, {
            "kind": kind, "run_id": f"run{self.runs}", "new_id": f"r{self.runs}", "forks": 50,
            "dead_runs": [f"run{number}" for number in range(1, self.runs)],
            "machines": dict.fromkeys(fleet, "m1"), "routers": {}})
        if plan["refused"]:
            return "refused"
        self.unseen = {name for name, own in plan["workers"].items() if own["action"] == "unreachable"}
        self.lock()
        closed = self.waves(plan, plan["waves"], self.outcomes, _gate.gate)
        closed = _verdict.closed_by(plan, self.outcomes, closed or {}) or {}
        back = _gate.back_plan(plan, self.outcomes, str(closed.get("cause") or ""), self.settings["solver_on_abort"])
        self.waves(back, back["waves"], self.backs, _gate.gate_back)
        backs = {name: self.backs.get(name) or {"outcome": "failed", "reason": "x"} for name in back["order"]}
        final = {name: worker.census() for name, worker in self.workers.items()}
        document = _verdict.verdict(plan, self.outcomes, final, gate=closed, backs=backs,
                                    undone=back["undoes"])
        for name in plan["lock"]["workers"]:
            self.release(name, document)
        self.judge(document)
        return str(document["verdict"])

    def lock(self) -> None:
        plan = self.plan
        for name in plan["lock"]["workers"]:
            worker, planned = self.living(name), plan["workers"][name]
            if not worker.reachable:
                continue
            moves = planned["action"] == "update" or (planned["action"] == "already" and planned["begins"])
            rolls = plan["kind"] != "recover" and moves
            claim = _record.Claim(
                plan["rollout_id"], plan["run_id"], plan["kind"], plan["asked"],
                release_from={"version": planned["back_version"], "release": planned["back_to"]}
                if rolls and planned["back_to"] else None,
                release_to={"version": planned["to"], "release": planned["release"]} if rolls else None,
                started_at=f"2026-11-24T01:{self.runs:02}:00Z", expected_seq=planned["record_seq"],
                dead_runs=tuple(plan["lock"]["dead_runs"]))
            assert _record.refusal(worker.record, claim, AT) is None
            worker.record = _record.held(worker.record, claim, AT)

    def release(self, name: str, document: dict[str, Any]) -> None:
        worker = self.living(name)
        own = next(own for own in document["workers"] if own["name"] == name)
        if worker.reachable and _record.is_ours(worker.record, self.plan["run_id"]):
            end = {"verdict": document["verdict"], "outcome": own["outcome"], "cause": own["cause"],
                   "outcome_reason": own["reason"]}
            worker.record = _record.released(worker.record, self.plan["lock"]["roster"], end, AT)

    def waves(self, steps_of: dict[str, Any], waves: list[list[str]], into: dict[str, Any], decide: Any) -> Any:
        for wave in waves:
            known = {**self.outcomes, **(self.backs if decide is _gate.gate_back else {})}
            live = {}
            for name in self.plan["lock"]["workers"]:
                worker = self.living(name)
                if worker.reachable:
                    became = _gate.told(self.outcomes, self.backs).get(name)
                    worker.record = _record.renewed(worker.record, 1800.0, AT, became)
                    live[name] = {"census": worker.census(), "record": worker.record}
                else:
                    live[name] = {"unreachable": True}
            known = _gate.with_losses(known, _gate.lost_later(self.plan, known, live))
            decision = decide(self.plan, known, live, wave, _gate.Stall(901.0, 900.0)) \
                if self.happens(30) else decide(self.plan, known, live, wave, _gate.Stall(0.0, 900.0))
            if not decision.open:
                # One that would wait waits in vain here, so it aborts.
                return {"open": False, "cause": decision.cause, "reason": decision.reason}
            if decide is _gate.gate:
                assert len(_gate.spent_by(self.plan, known)) <= self.plan["tolerated"], "above the budget"
            for name in wave:
                into[name] = {"outcome": "unknown", "cause": "unknown", "reason": "interrupted"}
            for name in wave:
                into[name] = self.update(steps_of["workers"][name], name)
        return None

    # -- one worker's update --------------------------------------------------------------------

    def update(self, planned: dict[str, Any], name: str) -> dict[str, Any]:
        steps: dict[str, Any] = {name: {} for name in (*_step.STEPS, *_step.REVERT_STEPS, "give_back", "revert_drain")}
        for step in _step.STEPS:
            worker = self.living(name)
            steps[step] = self.step(step, worker, planned) if worker.reachable else {"unreachable": True, "msg": "gone"}
            if not _step.step_ok(steps[step]) and step != "soak":
                break
        revertible = planned["back_to"] is not None
        follows = _step.next_action(steps, revertible, planned)
        if follows == "resume":
            steps["give_back"] = self.resume(name)
        elif follows == "revert":
            self.revert(steps, planned, name)
        return _step.outcome(planned, steps, revertible)

    def step(self, step: str, worker: Worker, planned: dict[str, Any]) -> dict[str, Any]:
        if step == "drain":
            if self.happens(12):
                # It does not end in time, and what this call took it gives back.
                return {"failed": True, "failure": {"code": "drain_timeout"}, "gave_back": True, "msg": "late"}
            worker.take(planned["owner"], planned["on_expire"])
            return {"done": True, "worker": worker.census()["worker"]}
        if step == "switch":
            before = worker.running
            worker.starts(planned["release"])
            return {"done": True, "switched": before != planned["release"], "restarted": before != planned["release"],
                    "changed": True}
        if step == "verify":
            if (planned["probe"] and not worker.solves()) or self.happens(25):
                failure = {"code": "probe_failed", "details": {"fault": "worker"}}
                return {"failed": True, "failure": failure, "msg": "no"}
            return {"done": True, "worker": worker.census()["worker"]}
        if step == "resume":
            worker.drain = None
        return {"done": True}

    def resume(self, name: str) -> dict[str, Any]:
        worker = self.living(name)
        if not worker.reachable:
            return {"unreachable": True}
        worker.drain = None
        return {"done": True}

    def revert(self, steps: dict[str, Any], planned: dict[str, Any], name: str) -> None:
        for step in ("revert_drain", *_step.REVERT_STEPS):
            worker = self.living(name)
            if not worker.reachable:
                steps[step] = {"unreachable": True}
                return
            if step == "revert_drain":
                worker.take(planned["owner"], "verify")
            elif step == "revert":
                if self.happens(30):
                    steps[step] = {"failed": True, "msg": "disk", "failure": {"code": "unwritable"}}
                    return
                worker.starts(planned["back_to"])
            elif step == "revert_resume":
                worker.drain = None
            steps[step] = {"done": True, "changed": True}

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
                closed = document["verdict"]
                assert any(not other.reachable for other in self.workers.values()) or closed == "rollback_failed", \
                    (name, document)


@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(0, 2**32))
def test_no_history_breaks_an_invariant_and_every_one_ends_well(seed):
    chance = random.Random(seed)
    size = chance.randint(1, 7)
    world = World(size, chance)
    own = {"window": max(1, min(chance.randint(1, 3), size // 2)),
           "solver_max_fail_percentage": chance.choice([0.0, 25.0, 50.0]),
           "solver_on_abort": chance.choice(["rollback", "rollback", "stop"])}
    try:
        storm(world, own)
        calm(world, own)
    except AssertionError as error:
        error.add_note("\n".join([f"{size} workers, {own}", *world.story]))
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
        assert worker.serves(), (worker, world.outcomes)
        assert worker.solves()
    world.run("recover", **own)
    assert world.outcomes == {}, "a second recovery has something to do"
    assert world.run("update", "1.3.0", **{**own, "solver_force": True}) == "completed"
    assert {worker.running for worker in world.workers.values()} == {"1.3.0-new"}
    assert world.run("update", "1.3.0", **own) == "completed"
    assert world.outcomes == {}
