# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take one worker through its turn, and write down in the ledger what became of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.plugin_utils import _admit, _entry, _gate, _lines, _together, _view
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._fanout import (
    call_all,
    call_on,
    tidied,
    with_python,
)
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._ledger import document_of
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._run import PARTS, PLAN_OF, RunAction
from ansible_collections.solver.fleet.plugins.plugin_utils._controller._together import Others
from ansible_collections.solver.fleet.plugins.plugin_utils._program import Worker
from ansible_collections.solver.fleet.plugins.plugin_utils._turn import GoneError, Turn
from ansible_collections.solver.fleet.plugins.plugin_utils._turn_together import TogetherTurn
from ansible_collections.solver.fleet.plugins.plugin_utils._types import Outcome, Plan, State, StepResult

TICK_S = 0.1
# What of an outcome the gate decides by; the rest is for the verdict.
BRIEF = ("outcome", "cause", "reason", "step")
# How much of a verification the others in flight need to see.
VERIFIED = ("done", "failed", "unreachable", "failure")


class ActionModule(RunAction):
    """The worker's own connection is the task's; what becomes of the worker never fails the play's host."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.begin(tmp, task_vars, worker={"type": "str", "required": True}, part=PARTS)
        self.me, self.part = self.args["worker"], self.args["part"]
        self.plan: Plan = self.ledger.read(PLAN_OF[self.part])
        self.planned = self.plan["workers"][self.me]
        self.stage = _admit.stage_of(self.plan, self.me)
        # Whom a dead run left goes back alone: nobody serves what it goes back from.
        self.joint = self.plan["strategy"] == _gate.TOGETHER and self.part == "roll"
        self.answer: Mapping[str, Any] = {}
        state = self.ledger.read(self.part)
        phase = state["phase"].get(self.me)
        if phase == "left":
            # Its standby failed, and that was its turn.
            return result | {"outcome": self.ledger.read(document_of(self.part, self.me)), "ends_stage": False,
                             "msg": f"{self.me}: its turn is over"}
        if self.part == "roll" and phase != "raised" and _gate.closed_gate({}, state["hooks"]):
            return result | self._never_began()
        self.first_probe = len(state["probes"])
        try:
            return result | self._take_part(str(phase), state)
        except GoneError:
            return result | {"failed": True, "msg": "the controller's process is gone"}
        except Exception as error:  # noqa: BLE001  a full disk under the ledger must not cost the others their verdict
            return result | self._fell_apart(error)

    def _take_part(self, phase: str, state: State) -> dict[str, Any]:
        self._open_stage()
        outcome = self._part_of_turn(phase, state)
        if outcome is None:
            return self._goes_on(phase)
        if not outcome:
            return self._untouched()
        ends = self._leave(outcome)
        done = len(self.ledger.read(self.part)["brief"])
        line = _lines.progress_line(self.me, outcome, done, len(self.plan["order"]))
        self.tell(line)
        return {"changed": True, "outcome": outcome, "ends_stage": ends, "msg": line}

    def _fell_apart(self, error: Exception) -> dict[str, Any]:
        """What became of the worker cannot be written down: nobody may begin, and its place is given back."""
        outcome, ends = self._unknown(error), False
        with contextlib.suppress(Exception), self.ledger.edit(self.part) as state:
            state["closed"] = state["closed"] or {"cause": "unknown", "reason": f"{self.me}: {outcome['reason']}"}
            state["phase"][self.me] = "left"
            state["brief"].setdefault(self.me, {name: outcome.get(name) for name in BRIEF})
            ends = _admit.end_stage(self.plan, state, self.stage)
        self.emit("outcome", **outcome)
        self.tell(f"{self.me}: {outcome['reason']}")
        return {"changed": True, "outcome": outcome, "ends_stage": ends, "msg": f"{self.me}: {outcome['reason']}"}

    def _never_began(self) -> dict[str, Any]:
        """The hook before the stage failed: the worker was let in for it, and is as it was."""
        with self.ledger.edit(self.part) as state:
            state["phase"].pop(self.me, None)
        return {"outcome": {}, "ends_stage": False, "msg": f"{self.me}: the hook before its stage failed"}

    def _untouched(self) -> dict[str, Any]:
        """It was let in, and those that it should have gone together with were not all: its hook is heard, no more."""
        fell = self.ledger.read(self.part)["together"]["fell"] or {}
        reason = str(fell.get("reason") or "not all could begin")
        with self.ledger.edit(self.part) as state:
            state["phase"][self.me] = "left"
            # Those at the gate go by this.
            state["closed"] = state["closed"] or {"cause": "budget", "reason": reason}
            ends = _admit.end_stage(self.plan, state, self.stage)
        outcome = {"outcome": "not_attempted", "cause": None, "reason": reason, "step": None,
                   "from": self.planned["from"], "to": self.planned["to"]}
        return {"outcome": outcome, "ends_stage": ends, "msg": f"{self.me} was left as it is: {reason}"}

    def _open_stage(self) -> None:
        """The hook before the stage is behind us: the others may come, whatever becomes of this worker."""
        with self.ledger.edit(self.part) as state:
            if self.stage not in state["begun"]:
                state["begun"].append(self.stage)
                # Nobody could become healthy while that hook ran.
                state["healthy_at"] = time.monotonic()

    def _part_of_turn(self, phase: str, state: State) -> Outcome | None:
        """Return what became of the worker; nothing where its turn goes on, or never began."""
        if phase == "raise":
            return self._turn(Turn.stand_by)
        hook = _gate.hook_outcome(state["hooks"], self.plan, self.me)
        if phase == "raised" or (hook and self.planned["switch"] == "standby"):
            # What waits for somebody's word stays, as long as its lease.
            if state["closed"].get("cause") != _gate.AWAITS:
                self._turn(Turn.drop)
            return hook
        return hook or self._turn(lambda turn: turn.run())

    def _goes_on(self, phase: str) -> dict[str, Any]:
        """Its standby stands by, or the gate closed before that could take over: the worker is as it was."""
        ends, waits = False, False
        with self.ledger.edit(self.part) as state:
            if phase == "raise":
                state["phase"][self.me] = "raised"
            else:
                state["phase"].pop(self.me, None)
                waits = state["closed"].get("cause") == _gate.AWAITS
                ends = _admit.end_stage(self.plan, state, self.stage)
        if phase == "raise":
            self.emit("stands_by")
        said = "its standby is verified" if phase == "raise" else (
            "its standby waits for the promotion" if waits else "it is as it was")
        return {"outcome": {}, "raised": phase == "raise", "ends_stage": ends, "msg": f"{self.me}: {said}"}

    def _turn(self, part: Callable[[Turn], Outcome | None]) -> Outcome | None:
        settings = _together.settings_of(self.settings, self.plan["strategy"], self.plan["fleet"])
        worker = Worker(self.planned, self.workers[self.me], settings, self.plan)
        turn = Turn(worker, self)
        if self.joint:
            others = Others(self.ledger, self.part, self.plan, self.me)
            turn = TogetherTurn(worker, self, others, time.monotonic)
        try:
            return part(turn)
        except GoneError:
            raise
        except Exception as error:  # noqa: BLE001  a mistake of ours must not cost the others their verdict
            return self._unknown(error)
        finally:
            self.answer = turn.last_answer()

    def _unknown(self, error: Exception) -> Outcome:
        why = f"the ledger on the controller: {error}" if isinstance(error, OSError) else \
            f"our own code failed, please report it: {error!r}"
        return {"outcome": "unknown", "cause": "unknown", "step": "turn", "from": self.planned["from"],
                "to": self.planned["to"], "reason": why}

    def _leave(self, outcome: Outcome) -> bool:
        """Write the outcome into the ledger, end the turn, and put what the worker said last into the view."""
        now = time.monotonic()
        self.ledger.keep(document_of(self.part, self.me), outcome)
        self._saw(self.answer)
        with self.ledger.edit(self.part) as state:
            state["phase"][self.me] = "left"
            state["brief"][self.me] = {name: outcome.get(name) for name in BRIEF}
            if outcome["outcome"] == "updated":
                state["healthy_at"] = now
            ends = _admit.end_stage(self.plan, state, self.stage)
        self.ledger.emit("outcome", part=self.part, worker=self.me, **{
            name: outcome.get(name) for name in (*BRIEF, "from", "to", "timings", "open_at_drain")})
        self.measure()
        return ends

    def _saw(self, answer: Mapping[str, Any]) -> None:
        """Put its last answer into the view; with none, drop the one of before its turn: the gate asks it again."""
        with self.ledger.edit("view") as view:
            before = view.pop(self.me, None)
            if answer:
                view[self.me] = _view.seen(answer, time.monotonic(), before)

    # -- what the turn needs of the controller -----------------------------------------------------

    def call(self, module: str, args: Mapping[str, Any], limit: float, host: str = "") -> dict[str, Any]:
        name = f"solver.fleet.{module}"
        if host and host != self.me:
            call = call_on(self, self.task_vars, host, name, args)
        else:
            variables = with_python(self.task_vars, self.pythons.get(self.me))

            def call() -> dict[str, Any]:
                said = self._execute_module(module_name=name, module_args=dict(args), task_vars=variables)
                # The folder of the call, where there was one, is known in this process alone.
                tidied(self)
                return {key: value for key, value in said.items() if not key.startswith("_ansible")}
        said = call_all({self.me: call}, timeout=limit, parallel=1, orphans_go_on=True)[self.me]
        if module == "worker_steps":
            return dict(_entry.step_results(said, time.time()))
        return dict(_entry.step_result(said, time.time(), "reference"))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def emit(self, event: str, **facts: Any) -> None:
        self.ledger.emit(event, part=self.part, worker=self.me, **facts)

    def verify_ended(self, result: dict[str, Any]) -> None:
        with self.ledger.edit(self.part) as state:
            state["probes"].append({name: result[name] for name in VERIFIED if name in result})

    def verifications(self) -> list[StepResult]:
        return list(self.ledger.read(self.part)["probes"][self.first_probe:])

    def reference_workers(self) -> list[dict[str, str]]:
        state = self.ledger.read(self.part)
        flight = _together.not_to_ask(self.plan, state, self.me) if self.joint else _admit.in_flight(state)
        return _gate.reference_workers(self.ledger.read("plan"), self.workers, flight, self.me)

    def serves_again(self, answer: Mapping[str, Any]) -> None:
        self._saw(answer)
        with self.ledger.edit(self.part) as state:
            state["phase"][self.me] = "soak"
            state["healthy_at"] = time.monotonic()
        self.emit("serves")

    def await_place_to_leave(self, answer: Mapping[str, Any]) -> None:
        """One that does not serve is out already: its revert waits for nobody."""
        self._saw(answer)
        waits = _gate.serves_now(_view.seen(answer, 0.0))
        with self.ledger.edit(self.part) as state:
            state["phase"][self.me] = "again" if waits else "turn"
        since = time.monotonic()
        while waits:
            if not self.alive():
                raise GoneError
            with self.ledger.edit(self.part) as state:
                if self._may_leave(state, time.monotonic() - since):
                    state["phase"][self.me] = "turn"
                    return
            time.sleep(TICK_S)

    def _may_leave(self, state: State, waited: float) -> bool:
        """Whether there is a place in the window and the floor is kept, or both have been waited for for long enough.

        A place may never be given back (C(_gate.stuck)): what failed must not serve on for that.
        Where the lock is lost it may as well: the host refuses what comes from a run that has lost it.
        """
        window = min(self.plan["window"], self.plan["stages"][self.stage]["window"])
        deadline = float(self.settings["solver_progress_deadline"])
        if waited <= 2 * deadline and _admit.occupied(state, self.plan["max_soaking"]) >= window:
            return False
        live = {name: own for name, own in self.ledger.read("view").items() if name in self.workers}
        stall = _gate.Stall(waited, deadline)
        asking = _gate.Asking(self.me, _admit.in_flight(state))
        said = _gate.gate_back(self.ledger.read("plan"), state["brief"], live, asking, stall)
        return said.open or not said.wait
