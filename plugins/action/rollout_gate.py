# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wait until a worker's turn may begin, or until it is clear that it never will."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _entry, _gate, _view
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._bake import Bake, Ended
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._fanout import Calls, call_on
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import (
    PARTS,
    PLAN_OF,
    SAY_EVERY_S,
    RunAction,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Closed, Outcome, State

# How often somebody who waits looks whether the ledger has changed; a look costs one system call.
TICK_S = 0.05
# Between two looks at a fleet that is short of serving workers.
SHORT_S = 1.0
# How often the comparison of a canary says how far it is.
BAKE_SAYS_S = 20.0
# Looks at once, beside the work of those in flight.
LOOKS = 8


class ActionModule(RunAction):
    """Never fails for what it sees: a hard stop would keep every later play from running."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars, worker={"type": "str", "required": True}, part=PARTS)
        self.me, self.part = self.args["worker"], self.args["part"]
        self.plan = self.ledger.read(PLAN_OF[self.part])
        # Who is out of service, or lost, is of the whole fleet; the plan of the way back has only those that go back.
        self.fleet = self.plan if self.part == "roll" else self.ledger.read("plan")
        self.stage = _admit.stage_of(self.plan, self.me)
        self.planned = self.plan["workers"][self.me]
        # Its standby is verified, and it asks for the place in the window.
        self.takes_over = self.ledger.read(self.part)["phase"].get(self.me) == "raised"
        if self.settings["solver_floor_view"] == "routers":
            self.workers = dict(self.workers)  # what the routers call each of them; not read one by one under a lock
        self.after = self._after()
        self.bake = Bake(self, self.plan) if self.after == "bake" else None
        self.parallel = max(2, min(LOOKS, self.forks // 2))
        # How long a look takes is known from the gates before: what is old is so by that.
        self.mean_s, self.asked_at = float(self.ledger.read("looks").get("mean_s", 1.0)), dict[str, float]()
        self.seen_version: tuple[int, ...] = (-1,)  # of no document
        self.said, self.said_at, self.compared_at = "", time.monotonic(), -BAKE_SAYS_S
        self.last_change: tuple[tuple[int, ...], float] = (self.seen_version, time.monotonic())
        try:
            self._arrive()
            decision = self._wait()
        except Exception as error:  # noqa: BLE001  a mistake of ours must not cost the others their verdict
            why = f"{self.me}: our own code failed at the gate, please report it: {error!r}"
            self._display.display(why)
            decision = {"open": False, "begins_stage": False, "ends_stage": False, "cause": "unknown", "reason": why}
            with contextlib.suppress(Exception), self.ledger.edit(self.part) as state:
                state["closed"] = state["closed"] or {"cause": "unknown", "reason": why}
        if decision is None:
            return result | {"failed": True, "msg": "the controller's process is gone"}
        return result | decision | {"msg": decision["reason"] or "going on"}

    def _arrive(self) -> None:
        """Before a stage has begun nobody can become healthy, however long the hooks before it took."""
        names = self.plan["stages"][self.stage]["workers"]
        with self.ledger.edit(self.part) as state:
            if self.stage not in state["begun"] and not any(name in state["phase"] for name in names):
                state["healthy_at"] = time.monotonic()

    def _wait(self) -> dict[str, Any] | None:
        """Return the decision, or nothing where nobody waits for it any more."""
        with Calls(timeout=self.look_s, parallel=self.parallel, lanes=self.lanes) as looks:
            while self.alive():
                decision = self._ask(looks)
                if decision:
                    return decision
                self._merge(looks.collect(self.pause))
        return None

    def _after(self) -> str:
        """Return what the stages before this worker's have to wait for; the first one at this gate waits for all.

        Also where the one that should have waited before could not: nobody passes without a judgement.
        """
        first = self.plan["stages"][self.stage]["workers"][0] == self.me and not self.takes_over
        if self.part != "roll" or not first or self.ledger.read(self.part).get("judgement"):
            return "nothing"
        waits = [stage["after"] for stage in self.plan["stages"][:self.stage] if stage["after"] != "nothing"]
        return str(waits[-1]) if waits else "nothing"

    # -- between two stages ------------------------------------------------------------------------

    def _between(self, looks: Calls) -> dict[str, Any]:
        """Wait for what the stage before this one leads to: whether it was good, and whether somebody promotes it."""
        self.pause = SHORT_S
        state, view, now = self.ledger.read(self.part), self.ledger.read("view"), time.monotonic()
        if state["closed"] or self._hook(state):
            self.after = "nothing"
            return {}
        live = self._with_routers(view)
        if not _view.is_stale(view, self.plan["lock"]["workers"], now, self.mean_s, self.parallel):
            shut = _gate.shut(self.fleet, self._known(state, live), live, _gate.Asking(self.me))
            if shut:
                return self._close({"cause": shut.cause, "reason": shut.reason})
            ended = self.bake.step(live, now) if self.bake else Ended("promote", "")
            if ended:
                return self._promoted(ended)
        self._refresh(looks, [])
        self._say_progress(now)
        return {}

    def _promoted(self, ended: Ended) -> dict[str, Any]:
        """Go on, or close the gate by what was judged."""
        self.after = "nothing"
        self.ledger.emit("judged", part=self.part, word=ended.word, reason=ended.reason)
        with self.ledger.edit(self.part) as state:
            state["judgement"] = {"word": ended.word, "reason": ended.reason}
            # Nobody became healthy while the comparison lasted, and nobody had to.
            state["healthy_at"] = time.monotonic()
        closed = _gate.closed_by_judgement(ended.word, ended.reason, self.plan)
        return self._close(closed) if closed else {}

    def _close(self, closed: Closed) -> dict[str, Any]:
        with self.ledger.edit(self.part) as state:
            return self._closed(state, closed)

    def _say_progress(self, now: float) -> None:
        if self.bake and self.bake.baselines and now - self.compared_at >= BAKE_SAYS_S:
            self.compared_at = now
            line = self.bake.progress()
            self.ledger.emit("bake", part=self.part, reason=line)
            self.tell(f"comparing canaries: {line}")

    # -- deciding ----------------------------------------------------------------------------------

    def _ask(self, looks: Calls) -> dict[str, Any]:
        """Decide, or nothing while there is something to wait for."""
        if self.after != "nothing":
            return self._between(looks)
        self.pause = TICK_S
        version = self.ledger.version(self.part)
        if version == self.seen_version and self.said == _admit.NOT_YET:
            return {}
        self.seen_version = version
        with self.ledger.edit(self.part) as state:
            closed = state["closed"] or self._hook(state) or self._stuck(state, version)
            waits = _admit.waits_to_take_over if self.takes_over else _admit.waits_for
            why = "" if closed else waits(self.plan, state, self.me)
            flight = _admit.in_flight(state)
            decision = self._closed(state, closed) if closed else {} if why else self._decide(state, flight)
        self._tell(why)
        if not decision and why != _admit.NOT_YET:
            self._refresh(looks, flight)
        return decision

    def _hook(self, state: State) -> Closed:
        closed = _gate.closed_gate({}, state["hooks"])
        return closed if self.part == "roll" else {}

    def _stuck(self, state: State, version: tuple[int, ...]) -> Closed:
        """A worker in flight whose host is out of the play never gives its place back."""
        now = time.monotonic()
        if version != self.last_change[0]:
            self.last_change = (version, now)
        said = _gate.stuck(_admit.beside(state), now - self.last_change[1],
                           float(self.settings["solver_progress_deadline"]))
        return {"cause": said.cause, "reason": said.reason} if said else {}

    def _closed(self, state: State, closed: Closed) -> dict[str, Any]:
        if not state["closed"]:
            state["closed"] = closed
            self.ledger.emit("closed", part=self.part, **closed)
        # Whoever is at work when the gate closes ends the stage; if nobody is, the first that finds it closed does.
        ends = _admit.end_stage(self.plan, state, self.stage)
        return {"open": False, "begins_stage": False, "ends_stage": ends, **state["closed"]}

    def _decide(self, state: State, flight: list[str]) -> dict[str, Any]:
        """Ask the pure functions, with the view as it is now."""
        view, now = self.ledger.read("view"), time.monotonic()
        names = [name for name in self.plan["lock"]["workers"] if name not in flight]
        if _view.is_stale(view, names, now, self.mean_s, self.parallel):
            return {}
        live = self._with_routers(view)
        outcomes = self._known(state, live)
        deadline = float(self.settings["solver_progress_deadline"])
        begins = self.stage not in state["begun"]
        raises = self.planned["switch"] == "standby" and not self.takes_over
        # Whoever is taken over from serves throughout; one by one the floor is asked all the same.
        serves = raises or (self.takes_over and self.plan["stages"][self.stage].get("barrier", False))
        decide = _gate.gate_back if self.part == "back" else _gate.gate_beside if serves else _gate.gate
        asking, stall = _gate.Asking(self.me, flight), _gate.Stall(now - state["healthy_at"], deadline)
        said = decide(self.fleet, outcomes, live, asking, stall)
        if said.wait:
            self._waits(said, stall.deadline_s - stall.seconds)
            return {}
        if said.open and serves and not raises:
            awaits = _gate.closed_by_judgement("promote", "all standbys are verified", self.plan)
            if awaits:
                return self._closed(state, awaits)
        if not said.open:
            return self._closed(state, {"cause": said.cause, "reason": said.reason})
        state["phase"][self.me] = "raise" if raises else "turn"
        if begins and "before_stage" not in self.settings["solver_hooks"]:
            state["begun"].append(self.stage)
        self.ledger.emit("takes_over" if self.takes_over else "admitted", part=self.part, worker=self.me,
                         stage=self.stage + 1, flight=[*flight, self.me], spent=_gate.spent_by(self.fleet, outcomes))
        return {"open": True, "raises": raises, "begins_stage": begins, "ends_stage": False, "cause": "",
                "reason": ""}

    def _known(self, state: State, live: _gate.Live) -> dict[str, Outcome]:
        """Return what became of each worker, with those that were fine and are lost by now."""
        outcomes = dict(state["brief"])
        if self.part == "back":
            outcomes = {**self.ledger.read("roll").get("brief", {}), **outcomes}
        gone = set(_gate.lost_later(self.fleet, outcomes, live)) & _view.lost(live)
        return _gate.with_losses(outcomes, gone)

    # -- looking -----------------------------------------------------------------------------------

    def _refresh(self, looks: Calls, flight: list[str]) -> None:
        """Ask those whose last answer is old; who is in flight is known."""
        view, now = self.ledger.read("view"), time.monotonic()
        names = [name for name in self.plan["lock"]["workers"] if name not in flight]
        soon = () if self.said else [name for name in names if not _gate.serves_now(view.get(name, {}))]
        due = self.bake.due(now) if self.bake and self.after == "bake" else []
        for name in dict.fromkeys([*_view.to_ask(view, names, now, soon), *due]):
            if len(self.asked_at) >= 2 * self.parallel:
                break
            if name not in self.asked_at:
                self.asked_at[name] = now
                looks.add(name, call_on(self, self.task_vars, name, "solver.fleet.rollout_lock", self.lock_args(name)))
        if self.settings["solver_floor_view"] == "routers":
            self._ask_routers(looks, view.get(":routers") or {}, now)

    def lock_args(self, name: str) -> dict[str, Any]:
        """A look also says that the run is alive."""
        own = self.workers[name]
        return {"worker_dir": own["worker_dir"], "state": "renewed", "rollout_id": self.plan["rollout_id"],
                "run_id": self.plan["run_id"], "ttl": self.settings["solver_lock_ttl"],
                "control_socket": own["control_socket"], "control_timeout": self.settings["solver_control_timeout"]}

    def _ask_routers(self, looks: Calls, known: dict[str, Any], now: float) -> None:
        for host, own in self.rollout["routers"].items():
            if host not in self.asked_at and _view.age_of(known, host, now) > _view.SOON_S:
                self.asked_at[host] = now
                looks.add(host, call_on(self, self.task_vars, host, "solver.fleet.router_info", {
                    "stats_socket": own["stats_socket"], "backend": own["backend"],
                    "timeout": self.settings["solver_control_timeout"]}))

    def _with_routers(self, view: dict[str, Any]) -> _gate.Live:
        live = {name: own for name, own in view.items() if name != ":routers"}
        if self.settings["solver_floor_view"] != "routers":
            return live
        return _gate.with_routers(live, self.workers, view.get(":routers") or {})

    def _merge(self, found: dict[str, dict[str, Any]]) -> None:
        if not found:
            return
        now = time.monotonic()
        with self.ledger.edit("view") as view:
            for name, answer in found.items():
                took = now - self.asked_at.pop(name, now)
                self.mean_s += 0.2 * (took - self.mean_s)
                if name in self.workers:
                    before, said = view.get(name), _entry.lock_answer(answer, time.time())
                    view[name] = _view.seen(said, now, before)
                    serves = _gate.serves_now(view[name])
                    if serves != bool(before and _gate.serves_now(before)):
                        self.ledger.emit("seen", worker=name, serves=serves)
                    if self.bake:
                        self.bake.take(name, said, now)
                else:
                    view.setdefault(":routers", {})[name] = {**_entry.router(answer, time.time()), "at": now}
        self.ledger.keep("looks", {"mean_s": round(self.mean_s, 3)})
        self.seen_version = (-1,)

    # -- telling -----------------------------------------------------------------------------------

    def _tell(self, why: str) -> None:
        if why != self.said and why not in ("", _admit.NOT_YET):
            self.ledger.emit("waiting", part=self.part, worker=self.me, reason=why)
        self.said = why

    def _waits(self, said: _gate.Decision, left: float) -> None:
        self.pause = SHORT_S
        now = time.monotonic()
        if now - self.said_at >= SAY_EVERY_S:
            self.said_at = now
            self.ledger.emit("waiting", part=self.part, worker=self.me, reason=said.reason, left_s=round(left))
            self.tell(f"waiting for workers, {left:.0f} s left: {said.reason}")
